//! VMMs asked to end together.

use std::time::Duration;

use stockade::spec::JailId;
use stockade::{JailState, Store, VmmHandle, stop_all};

use crate::terminal::output::{Failure, info};

/// Stops the VMMs that run, all within the same grace period.
pub(crate) fn stop_vmms(store: &Store, ids: &[JailId], grace: Duration) -> Result<(), Failure> {
    let mut running: Vec<VmmHandle> = Vec::new();
    for id in ids {
        match store.vmm(id) {
            Ok(Some(watched)) => running.push(watched),
            Ok(None) => end_members(store, id)?,
            // The others are stopped all the same.
            Err(error) => info(&error.to_string()),
        }
    }
    stop_all(&running, grace)?;
    Ok(())
}

/// What runs on in a jail whose VMM has ended.
fn end_members(store: &Store, id: &JailId) -> Result<(), Failure> {
    match store.read(id) {
        Ok(Some(receipt)) if receipt.state() == JailState::Exited => Ok(receipt.kill_members()?),
        // Whoever made any other ends it.
        _ => Ok(()),
    }
}
