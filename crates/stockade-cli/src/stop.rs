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
    /// Seconds that the VMMs have to end after SIGTERM, before they are killed; the rest of the jail is then.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
    #[command(flatten)]
    jails: SelectArgs,
}

/// Stops what runs of the jails.
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
            Ok(Some(watched)) => running.push(watched),
            Ok(None) => end_members(store, id)?,
            // The others are stopped all the same.
            Err(error) => note(&error.to_string()),
        }
    }
    stop_all(&running, grace)?;
    Ok(())
}

/// What runs on in a jail whose VMM has ended.
fn end_members(store: &Store, id: &JailId) -> Result<(), Failure> {
    match store.read(id) {
        Ok(Some(receipt)) if receipt.state() == JailState::Ended => Ok(receipt.end_members()?),
        // Whoever made any other ends it.
        _ => Ok(()),
    }
}
