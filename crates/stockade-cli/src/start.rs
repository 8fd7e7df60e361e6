//! `stockade start`: the VMM of a jail that was created.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use stockade::spec::JailId;
use stockade::{Error, Jail};

use crate::args::StateArgs;
use crate::host_setup;
use crate::jails::{is_dead, open};
use crate::output::{Failure, print, require_root};
use crate::ready::ReadyArgs;

/// Arguments of `start`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  stockade start vm-1 --ready -- --config-file /vm.json")]
pub(crate) struct StartArgs {
    /// Name of the jail.
    pub(crate) id: JailId,
    #[command(flatten)]
    ready: ReadyArgs,
    #[command(flatten)]
    pub(crate) state: StateArgs,
    /// Arguments for the VMM, in the place of those given to `create`.
    #[arg(last = true, value_name = "VMM ARGUMENTS")]
    pub(crate) arguments: Vec<OsString>,
}

pub(crate) fn start(args: &StartArgs) -> Result<ExitCode, Failure> {
    require_root("start")?;
    host_setup::on_the_side();
    let log_bytes = args.ready.log_bytes()?;
    let mut prepared = match open(&args.state.store()?, &args.id)? {
        Jail::Prepared(prepared) => prepared,
        Jail::Running(running) => {
            return Err(Error::Running { id: args.id.clone(), pid: running.pid() }.into());
        }
        Jail::Dead(dead) => return Err(is_dead(&dead)),
    };
    if !args.arguments.is_empty() {
        prepared.set_arguments(args.arguments.clone());
    }
    let ready = args.ready.socket(&prepared.receipt().spec)?;
    let mut running = prepared.launch_watched(log_bytes)?;
    if let Some(socket) = ready {
        running.wait_ready(&socket, args.ready.patience())?;
    }
    print(&format!("{}\n", running.pid())).map(|()| ExitCode::SUCCESS)
}
