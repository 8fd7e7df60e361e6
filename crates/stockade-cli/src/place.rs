//! `stockade place`: files, directories and devices into a jail that is there.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use stockade::spec::JailId;
use stockade::{Error, How, Jail};

use crate::args::{StateArgs, split_placement};
use crate::jails::{go_on, is_dead, open};
use crate::output::{Failure, print, require_root};

/// Arguments of `place`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  stockade place vm-1 vmlinux rootfs.img=drives/root.img")]
pub(crate) struct PlaceArgs {
    /// Name of the jail.
    pub(crate) id: JailId,
    /// What to place, and under which name.
    #[arg(required = true, value_name = "SRC[=NAME]")]
    files: Vec<OsString>,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}

impl PlaceArgs {
    pub(crate) fn files(&self) -> impl Iterator<Item = (&Path, Option<&Path>)> {
        self.files.iter().map(split_placement)
    }
}

pub(crate) fn place(args: &PlaceArgs) -> Result<ExitCode, Failure> {
    require_root("place")?;
    let mut jail = open(&args.state.store()?, &args.id)?;
    for (source, name) in args.files() {
        let placed = match &mut jail {
            Jail::Prepared(prepared) => prepared.place(source, name, How::Auto),
            Jail::Running(running) => running.place(source, name, How::Auto),
            Jail::Dead(dead) => return Err(is_dead(dead)),
        };
        let failed = |e: Error| Failure::new(format!("{}: {e}", source.display()));
        go_on(print(&format!("{}\n", placed.map_err(failed)?)))?;
    }
    Ok(ExitCode::SUCCESS)
}
