//! `stockade stop`: sends SIGTERM to VMMs, and kills those that do not exit.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use stockade::{JailState, Listing};

use crate::batch::stop::stop_vmms;
use crate::flags::duration::duration;
use crate::select::{IdMatch, SelectArgs};
use crate::terminal::output::{Failure, ignore_closed_stdout, print, require_root};

/// Arguments of `stop`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stockade stop --timeout 30 vm-1 vm-2
  stockade stop --file jails.toml
  stockade stop --all")]
pub(crate) struct StopArgs {
    /// Time from SIGTERM until the VMMs are killed; the jails' other processes are killed after them.
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    jails: SelectArgs,
}

pub(crate) fn stop(args: &StopArgs) -> Result<ExitCode, Failure> {
    require_root("stop")?;
    let runs = |jail: &Listing| jail.state == JailState::Running;
    let (store, selection) = args.jails.select(IdMatch::Exact, runs)?;
    let (mut known, mut code) = selection.known();
    for (failed, failure) in stop_vmms(&store, &known, args.timeout) {
        known.retain(|id| *id != failed);
        code = failure.report();
    }
    known.iter().try_for_each(|id| ignore_closed_stdout(print(&format!("{id}\n"))))?;
    Ok(code)
}
