//! `stockade start`: the VMM of a jail that was created.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use stockade::spec::{JailId, JailPath, JailSpec};
use stockade::{Error, Jail};

use crate::advice;
use crate::args::{StateArgs, in_flag, size};
use crate::host_setup;
use crate::jails::{is_dead, open};
use crate::output::{Failure, print, require_root};

/// Arguments of `start`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  stockade start vm-1 --ready -- --config-file /vm.json")]
pub(crate) struct StartArgs {
    /// Name of the jail.
    pub(crate) id: JailId,
    /// The most that the log of the VMM's output may hold; 0 drops the output.
    #[arg(long, value_name = "SIZE", default_value = "1M")]
    log_size: String,
    /// Return only once the VMM accepts connections at this Unix socket in the jail; at its API socket unless
    /// given.
    #[arg(long, value_name = "SOCKET", num_args = 0..=1, require_equals = true)]
    #[expect(clippy::option_option, reason = "given or not, and with a socket or without")]
    ready: Option<Option<PathBuf>>,
    /// Seconds that it may take until then.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "ready")]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) state: StateArgs,
    /// Arguments for the VMM, in the place of those given to `create`.
    #[arg(last = true, value_name = "VMM ARGUMENTS")]
    pub(crate) arguments: Vec<OsString>,
}

impl StartArgs {
    pub(crate) fn log_bytes(&self) -> Result<u64, Failure> {
        if self.log_size == "0" { Ok(0) } else { size("log-size", &self.log_size) }
    }

    /// Where the VMM is to accept connections before the command returns, if it is to.
    fn socket(&self, spec: &JailSpec) -> Result<Option<JailPath>, Failure> {
        match &self.ready {
            None => Ok(None),
            Some(Some(path)) => JailPath::new(path).map(Some).map_err(in_flag("ready")),
            Some(None) => spec.socket().map(Some).ok_or_else(|| {
                Failure::new(format!(
                    "--ready: with these arguments the profile {} knows no socket of the VMM: name one, as in \
                     --ready=run/vmm.sock",
                    spec.profile.name
                ))
            }),
        }
    }
}

pub(crate) fn start(args: &StartArgs) -> Result<ExitCode, Failure> {
    require_root("start")?;
    host_setup::on_the_side();
    let log_bytes = args.log_bytes()?;
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
    let ready = args.socket(&spec)?;
    let launched = prepared.launch_watched(log_bytes);
    let mut running = launched.map_err(|error| Failure::new(advice::not_started(&error, &spec)))?;
    if let Some(socket) = ready {
        running.wait_ready(&socket, Duration::from_secs(args.timeout))?;
    }
    print(&format!("{}\n", running.pid())).map(|()| ExitCode::SUCCESS)
}
