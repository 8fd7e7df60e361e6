//! `stockade create`: a jail made, and left standing.

use std::process::ExitCode;

use clap::Args;

use crate::args::{JailArgs, StateArgs};
use crate::host_setup;
use crate::output::{Failure, print, require_root};
use crate::run::prepare;

/// Arguments of `create`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  stockade create --id vm-1 --exec-file /usr/local/bin/firecracker --netns vm-1")]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub(crate) jail: JailArgs,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}

pub(crate) fn create(args: &CreateArgs) -> Result<ExitCode, Failure> {
    let spec = args.jail.spec()?;
    require_root("create")?;
    host_setup::on_the_side();
    prepare(&args.state.store()?, &spec, &args.jail)?.leave()?;
    print(&format!("{}\n", spec.id)).map(|()| ExitCode::SUCCESS)
}
