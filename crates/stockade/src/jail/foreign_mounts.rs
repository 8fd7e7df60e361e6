//! Foreign mounts in a jail's directory.

use crate::error::Result;
use crate::state::Receipt;
use crate::steps::Step;
use crate::sys::mounts::{Mount, is_ramfs, table, unmount};

/// Foreign mounts on a jail's directory and below it, the last first, because it may hide those before it.
pub(crate) fn foreign(receipt: &Receipt) -> Result<Vec<Mount>> {
    let directory = receipt.layout.jail_dir();
    let own = |mount: &Mount| {
        receipt.steps.iter().any(|step| match step {
            Step::Ramfs(ramfs) => {
                is_ramfs(mount, &ramfs.name)
                    && mount.point == receipt.root().join(ramfs.path.relative()).as_path()
            }
            _ => false,
        })
    };
    let mut found = table()?;
    found.retain(|mount| mount.point.starts_with(directory.as_path()) && !own(mount));
    found.reverse();
    Ok(found)
}

/// Unmounts the foreign mounts, and returns those that were unmounted.
pub(crate) fn unmount_foreign(receipt: &Receipt) -> Result<Vec<Mount>> {
    let above = receipt.layout.exec_dir();
    let mut unmounted = Vec::new();
    for mount in foreign(receipt)? {
        // The teardown reports a mount that cannot be unmounted.
        if unmount(&mount, &above).is_ok() {
            unmounted.push(mount);
        }
    }
    Ok(unmounted)
}
