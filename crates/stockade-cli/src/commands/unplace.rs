//! `stockade unplace`: what was placed into a jail taken out again.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use stockade::Jail;
use stockade::spec::{JailId, JailPath};

use crate::flags::lookup::{open, stopped_jail};
use crate::flags::state::StateArgs;
use crate::terminal::output::{Failure, ignore_closed_stdout, print, require_root};

/// Arguments of `unplace`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  stockade unplace vm-1 /drives/root.img")]
pub(crate) struct UnplaceArgs {
    /// Name of the jail.
    pub(crate) id: JailId,
    /// What to take out, by its path in the jail.
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
            Jail::Created(prepared) => prepared.unplace(path)?,
            Jail::Running(running) => running.unplace(path)?,
            Jail::Exited(dead) | Jail::Abandoned(dead) => return Err(stopped_jail(dead)),
        }
        ignore_closed_stdout(print(&format!("{path}\n")))?;
    }
    Ok(ExitCode::SUCCESS)
}
