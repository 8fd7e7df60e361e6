//! Stops several VMMs at once.

use std::time::Duration;

use stockade::spec::JailId;
use stockade::{JailState, Receipt, Store, Unheeded, VmmHandle, stop_all_with_notes};

use crate::terminal::output::{Failure, info};

/// Stops the running VMMs of these jails, all within the same grace period. Returns the jails that may run on: a process
/// does not exit, or nothing is known of the jail because it cannot be read.
pub(crate) fn stop_vmms(store: &Store, ids: &[JailId], grace: Duration) -> Vec<(JailId, Failure)> {
    let mut running: Vec<VmmHandle> = Vec::new();
    let mut failed: Vec<(JailId, Failure)> = Vec::new();
    for id in ids {
        match store.vmm(id) {
            Ok(Some(vmm)) => running.push(vmm),
            Ok(None) => failed.extend(end_members(store, id).err().map(|failure| (id.clone(), failure))),
            Err(error) => failed.push((id.clone(), error.into())),
        }
    }
    let stopped = stop_all_with_notes(&running, grace, &mut report_unheeded);
    let stopped = running.iter().map(|vmm| vmm.receipt().id.clone()).zip(stopped);
    failed.extend(stopped.filter_map(|(id, status)| Some((id, status.err()?.into()))));
    failed
}

/// Explains why a VMM is killed at once, or why it takes long to stop it.
pub(crate) fn report_unheeded(receipt: &Receipt, unheeded: Unheeded) {
    let consequence = match unheeded {
        Unheeded::Dropped => "killing it now",
        Unheeded::Ignored => "it is killed after the grace period",
    };
    info(&format!("the VMM of jail '{}' {unheeded}; {consequence}", receipt.id));
}

/// Ends the processes that survived the VMM of an exited jail.
fn end_members(store: &Store, id: &JailId) -> Result<(), Failure> {
    match store.read(id) {
        Ok(Some(receipt)) if receipt.state() == JailState::Exited => Ok(receipt.kill_members()?),
        // In any other state the jail's owning process ends them.
        _ => Ok(()),
    }
}
