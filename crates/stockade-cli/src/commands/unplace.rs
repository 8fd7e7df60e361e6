//! `stockade unplace`: takes placed files, directories and devices out of a jail.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use stockade::Jail;
use stockade::spec::{JailId, JailPath};

use crate::flags::lookup::{open, stopped_jail};
use crate::flags::state::StateArgs;
use crate::terminal::output::{Failure, escape_control, ignore_closed_stdout, print, require_root};

/// Arguments of `unplace`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  stockade unplace vm-1 /drives/root.img")]
pub(crate) struct UnplaceArgs {
    /// ID of the jail.
    pub(crate) id: JailId,
    /// Path in the jail of a placed file, directory or device.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}

pub(crate) fn unplace(args: &UnplaceArgs) -> Result<ExitCode, Failure> {
    require_root("unplace")?;
    let paths = args.paths.iter().map(JailPath::new).collect::<Result<Vec<_>, _>>()?;
    let mut jail = open(&args.state.store()?, &args.id)?;
    for path in &paths {
        match &mut jail {
            Jail::Created(created) => created.unplace(path)?,
            Jail::Running(running) => running.unplace(path)?,
            Jail::Exited(stopped) | Jail::Abandoned(stopped) => return Err(stopped_jail(stopped)),
        }
        ignore_closed_stdout(print(&format!("{}\n", escape_control(&path.to_string()))))?;
    }
    Ok(ExitCode::SUCCESS)
}
