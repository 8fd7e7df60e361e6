//! `stockade run`: prepare, place, launch, wait, tear down.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use stockade::Report;

use crate::crew::Crew;
use crate::host_setup;
use crate::jail_file::Described;
use crate::output::{Failure, note, require_root};
use crate::ready::ReadyArgs;
use crate::service;
use crate::signals::stop_signals;
use crate::wish::prepare_all;

/// What `run` is asked besides the jail.
#[derive(Debug, Args)]
#[command(
    override_usage = "stockade run [OPTIONS] --id <ID> --exec-file <FILE> [-- <VMM ARGUMENTS>...]",
    after_help = "Examples:
  stockade run --id vm-1 --exec-file /usr/bin/busybox --place disk.img -- sh -c 'ls -l /'
  stockade run -f jails.toml"
)]
pub(crate) struct RunArgs {
    /// Print the jail's id and return once the VMM runs.
    #[arg(short, long, conflicts_with = "daemonize")]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) ready: ReadyArgs,
    /// Time from Ctrl-C or SIGTERM until the VMM is killed.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    grace: u64,
}

impl RunArgs {
    /// How long the VMM has to end by itself.
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace)
    }
}

pub(crate) fn run(args: &Described<RunArgs>) -> Result<ExitCode, Failure> {
    let mut wishes = args.wishes()?;
    require_root("run")?;
    host_setup::on_the_side();
    service::use_delegated_cgroup(&mut wishes)?;
    // From here on a signal waits until the VMMs can be stopped and the jails be removed.
    let signals = stop_signals()?;
    let prepared = prepare_all(&wishes, &signals)?;
    let crew = Crew::launch(&wishes, prepared)?;
    crew.ready(&signals)?.let_go()?.attend(&signals)
}

/// Tells what could not be removed.
pub(crate) fn tell_left(report: &Report) {
    for left in &report.left {
        note(&format!("left: {}: {}", left.what, left.reason));
    }
}
