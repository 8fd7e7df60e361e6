//! `stockade stop`: VMMs asked to end, and killed if they do not.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use stockade::spec::JailId;
use stockade::{JailState, Listing, Store, Watched, stop_all};

use crate::jails::go_on;
use crate::output::{Failure, note, print, require_root};
use crate::select::{Naming, SelectArgs};

/// Arguments of `stop`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stockade stop --timeout 30 vm-1 vm-2
  stockade stop --file jails.toml
  stockade stop --all")]
pub(crate) struct StopArgs {
    /// Seconds that the VMMs have to end after SIGTERM, before they are killed.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
    #[command(flatten)]
    jails: SelectArgs,
}

/// Stops what runs of the jails; one whose VMM does not run is stopped already.
pub(crate) fn stop(args: &StopArgs) -> Result<ExitCode, Failure> {
    require_root("stop")?;
    let runs = |jail: &Listing| jail.state == JailState::Running;
    let (store, chosen) = args.jails.choose(Naming::Whole, runs)?;
    let (known, code) = chosen.known();
    stop_together(&store, &known, Duration::from_secs(args.timeout))?;
    known.iter().try_for_each(|id| go_on(print(&format!("{id}\n"))))?;
    Ok(code)
}

/// Stops the VMMs that run, all within the same grace period.
pub(crate) fn stop_together(store: &Store, ids: &[JailId], grace: Duration) -> Result<(), Failure> {
    let mut running: Vec<Watched> = Vec::new();
    for id in ids {
        match store.watch(id) {
            Ok(watched) => running.extend(watched),
            // The others are stopped all the same.
            Err(error) => note(&error.to_string()),
        }
    }
    stop_all(&running, grace)?;
    Ok(())
}
