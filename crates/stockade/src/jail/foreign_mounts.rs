//! Foreign mounts in a jail's directory.

use crate::error::Result;
use crate::jail::teardown::Leftover;
use crate::state::Receipt;
use crate::steps::Step;
use crate::sys::mounts::{Described, Mount, is_ramfs, table, unmount};

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

/// Unmounts the foreign mounts, and returns those that were unmounted. The others are reported by [`leftovers`].
pub(crate) fn unmount_foreign(receipt: &Receipt) -> Result<Vec<Mount>> {
    let above = receipt.layout.exec_dir();
    let mut found = foreign(receipt)?;
    found.retain(|mount| unmount(mount, &above).is_ok());
    Ok(found)
}

/// The foreign mounts that are left, with the fix.
///
/// # Arguments
/// `tried` is whether [`unmount_foreign`] was called.
pub(crate) fn leftovers(receipt: &Receipt, tried: bool) -> Result<Vec<Leftover>> {
    let above = receipt.layout.exec_dir();
    let left = foreign(receipt)?.into_iter().filter_map(|mount| {
        let failure = tried.then(|| unmount(&mount, &above));
        let reason = match failure {
            None => "stockade did not mount it; unmount it, or run `stockade gc --force`".to_owned(),
            Some(Err(cause)) => format!("{cause}; unmount it, then run `stockade gc`"),
            // The mount above it was unmounted in between.
            Some(Ok(())) => return None,
        };
        Some(Leftover { what: Described(&mount).to_string(), reason })
    });
    Ok(left.collect())
}
