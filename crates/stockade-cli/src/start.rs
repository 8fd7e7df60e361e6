//! `stockade start`: the VMM of a jail that was created.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use stockade::spec::JailId;
use stockade::{Error, Jail};

use crate::advice;
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
    let spec = prepared.receipt().spec.clone();
    let ready = args.ready.socket(&spec)?;
    let launched = prepared.launch_watched(log_bytes);
    let mut running = launched.map_err(|error| advice::not_started(&error, &spec))?;
    if let Some(socket) = ready {
        running.wait_ready(&socket, args.ready.patience())?;
    }
    print(&format!("{}\n", running.pid())).map(|()| ExitCode::SUCCESS)
}
