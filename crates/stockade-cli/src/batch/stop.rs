//! Stops several VMMs at once.

use std::time::Duration;

use stockade::spec::JailId;
use stockade::{JailState, Store, VmmHandle, stop_all};

use crate::terminal::output::Failure;

/// Stops the running VMMs of these jails, all within the same grace period. Returns the jails that cannot be read, of
/// which nothing is known.
pub(crate) fn stop_vmms(
    store: &Store,
    ids: &[JailId],
    grace: Duration,
) -> Result<Vec<(JailId, Failure)>, Failure> {
    let mut running: Vec<VmmHandle> = Vec::new();
    let mut unread = Vec::new();
    for id in ids {
        match store.vmm(id) {
            Ok(Some(vmm)) => running.push(vmm),
            Ok(None) => end_members(store, id)?,
            // An unreadable jail must not keep the others running.
            Err(error) => unread.push((id.clone(), error.into())),
        }
    }
    stop_all(&running, grace)?;
    Ok(unread)
}

/// Ends the processes that survived the VMM of an exited jail.
fn end_members(store: &Store, id: &JailId) -> Result<(), Failure> {
    match store.read(id) {
        Ok(Some(receipt)) if receipt.state() == JailState::Exited => Ok(receipt.kill_members()?),
        // In any other state the jail's owning process ends them.
        _ => Ok(()),
    }
}
