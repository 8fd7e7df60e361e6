//! What others have mounted in a jail's directory.

use crate::error::Result;
use crate::state::Receipt;
use crate::steps::Step;
use crate::sys::mounts::{Mount, is_ramfs, table, unmount};

/// What others have mounted on a jail's directory and below it; the last first, which may hide those before it.
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

/// Takes them away; returns what was.
pub(crate) fn unmount_foreign(receipt: &Receipt) -> Result<Vec<Mount>> {
    let above = receipt.layout.exec_dir();
    let mut gone = Vec::new();
    for mount in foreign(receipt)? {
        // What cannot be unmounted is still there, and is told as such.
        if unmount(&mount, &above).is_ok() {
            gone.push(mount);
        }
    }
    Ok(gone)
}
