//! `stockade kill`: sends a signal to VMMs.

use std::process::ExitCode;

use clap::Args;
use rustix::process::Signal;
use stockade::{Error, JailState, Listing};

use crate::flags::lookup::{Sent, send_signal};
use crate::select::{IdMatch, SelectArgs};
use crate::terminal::output::{Failure, info, require_root};
use crate::terminal::signal_names;

/// Arguments of `kill`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stockade kill -s TERM vm-1
  stockade kill --filter 'id=test-*'")]
pub(crate) struct KillArgs {
    /// Signal to send, by name or number.
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    #[command(flatten)]
    pub(crate) jails: SelectArgs,
}

impl KillArgs {
    pub(crate) fn signal(&self) -> Result<Signal, Failure> {
        let no_signal = || {
            Failure::new(format!(
                "--signal: '{}' is not a signal; use a name or number, such as TERM or 15",
                self.signal
            ))
        };
        signal_names::parse(&self.signal).ok_or_else(no_signal)
    }
}

/// Sends the signal to each VMM, and reports each failure.
pub(crate) fn kill(args: &KillArgs) -> Result<ExitCode, Failure> {
    let signal = args.signal()?;
    require_root("kill")?;
    let runs = |jail: &Listing| jail.state == JailState::Running;
    let (store, selection) = args.jails.select(IdMatch::Exact, runs)?;
    let (ids, mut code) = selection.known();
    for id in &ids {
        match send_signal(&store, id, signal) {
            Ok(Sent::ToVmm) => (),
            Ok(Sent::Unheeded(unheeded)) => {
                info(&format!("the VMM of jail '{id}' {unheeded}; use `stop`, or `kill` without --signal"));
            }
            Ok(Sent::NotRunning) => code = Failure::from(Error::NotRunning(id.clone())).report(),
            Err(error) => code = Failure::from(error).report(),
        }
    }
    Ok(code)
}
