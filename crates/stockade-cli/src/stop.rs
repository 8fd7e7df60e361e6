//! `stockade stop`: VMMs asked to end, and killed if they do not.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use stockade::spec::JailId;
use stockade::{Store, Watched, stop_all};

use crate::jails::{IdsArgs, go_on, no_jail};
use crate::output::{Failure, note, print, require_root};

/// Arguments of `stop`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stockade stop --timeout 30 vm-1 vm-2
  stockade stop --file jails.toml")]
pub(crate) struct StopArgs {
    /// Seconds that the VMMs have to end after SIGTERM, before they are killed.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
    #[command(flatten)]
    jails: IdsArgs,
}

/// Stops what runs of the jails; one whose VMM does not run is stopped already.
pub(crate) fn stop(args: &StopArgs) -> Result<ExitCode, Failure> {
    require_root("stop")?;
    let (store, ids) = args.jails.store_and_ids()?;
    let (known, code) = known(&store, &ids)?;
    stop_together(&store, &known, Duration::from_secs(args.timeout))?;
    known.iter().try_for_each(|id| go_on(print(&format!("{id}\n"))))?;
    Ok(code)
}

/// The ids that are those of jails; of the others it tells.
fn known(store: &Store, ids: &[JailId]) -> Result<(Vec<JailId>, ExitCode), Failure> {
    let mut known = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for id in ids {
        if store.read(id)?.is_some() {
            known.push(id.clone());
        } else {
            code = no_jail(id).tell();
        }
    }
    Ok((known, code))
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
