//! What `run` can be asked, which is also what a jail file can say.

use std::time::Duration;

use clap::Args;

use super::ready::ReadyArgs;

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
