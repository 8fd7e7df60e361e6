//! Stops several VMMs at once.

use std::time::Duration;

use stockade::spec::JailId;
use stockade::{JailState, Store, VmmHandle, stop_all};

use crate::terminal::output::{Failure, info};

/// Stops the running VMMs of these jails, all within the same grace period.
pub(crate) fn stop_vmms(store: &Store, ids: &[JailId], grace: Duration) -> Result<(), Failure> {
    let mut running: Vec<VmmHandle> = Vec::new();
    for id in ids {
        match store.vmm(id) {
            Ok(Some(vmm)) => running.push(vmm),
            Ok(None) => end_members(store, id)?,
            // An unreadable jail must not keep the others running.
            Err(error) => info(&error.to_string()),
        }
    }
    // Every failure is reported, since each is a jail that may run on.
    let mut failures = stop_all(&running, grace).into_iter().filter_map(Result::err).map(Failure::from);
    let Some(first) = failures.next() else { return Ok(()) };
    for failure in failures {
        failure.report();
    }
    Err(first)
}

/// Ends the processes that survived the VMM of an exited jail.
fn end_members(store: &Store, id: &JailId) -> Result<(), Failure> {
    match store.read(id) {
        Ok(Some(receipt)) if receipt.state() == JailState::Exited => Ok(receipt.kill_members()?),
        // In any other state the jail's owning process ends them.
        _ => Ok(()),
    }
}
