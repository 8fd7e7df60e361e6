//! The flags of `run`, which are also the keys of a jail file.

use std::time::Duration;

use clap::Args;

use super::duration::duration;
use super::ready::ReadyArgs;

/// Arguments of `run`, besides the description of the jail.
#[derive(Debug, Args)]
#[command(
    override_usage = "stockade run [OPTIONS] --id <ID> --exec-file <FILE> [-- <VMM ARGUMENTS>...]
       stockade run [OPTIONS] -f <FILE> [--only <ID>] [-- <VMM ARGUMENTS>...]",
    after_help = "Example:
  stockade run --id vm-1 --exec-file /usr/bin/busybox --place disk.img -- sh -c 'ls -l /'"
)]
pub(crate) struct RunArgs {
    /// Print the jail's ID and return when the VMM runs.
    #[arg(short, long, conflicts_with = "daemonize")]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) ready: ReadyArgs,
    /// Time from Ctrl-C or SIGTERM until the VMM is killed.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    grace: Duration,
}

impl RunArgs {
    /// The time from the request to exit until the VMM is killed.
    pub(crate) fn grace(&self) -> Duration {
        self.grace
    }
}
