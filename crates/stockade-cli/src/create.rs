//! `stockade create`: jails made, and left standing.

use std::process::ExitCode;

use clap::Args;

use crate::args::{JailArgs, StateArgs};
use crate::host_setup;
use crate::jail_file::Described;
use crate::output::{Failure, print, require_root};
use crate::wish::{AsksForJail, leave_all, prepare_all};

/// Arguments of `create`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stockade create --id vm-1 --exec-file /usr/local/bin/firecracker --netns vm-1
  stockade create -f jails.toml")]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub(crate) jail: JailArgs,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}

impl AsksForJail for CreateArgs {
    fn jail(&self) -> &JailArgs {
        &self.jail
    }

    fn state(&self) -> &StateArgs {
        &self.state
    }
}

pub(crate) fn create(args: &Described<CreateArgs>) -> Result<ExitCode, Failure> {
    let wishes = args.wishes()?;
    require_root("create")?;
    host_setup::on_the_side();
    leave_all(&wishes, prepare_all(&wishes)?)?;
    wishes.iter().try_for_each(|wish| print(&format!("{}\n", wish.id()))).map(|()| ExitCode::SUCCESS)
}
