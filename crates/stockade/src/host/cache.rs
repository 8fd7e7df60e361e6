//! Facts about the host's cgroups that were read for an earlier jail and are still valid.

use super::CgroupLayout;
use super::tracking_cgroup::TrackingPoint;
use crate::error::Result;
use crate::sys::cache::Cached;

/// `statfs` types of cgroup filesystems.
const CGROUP_MAGIC: u64 = 0x0027_e0eb;
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// The mounts of cgroup hierarchies. The mount table, which can be long, is read again only if one of them is no longer
/// mounted, or if `suffices` is false for them.
pub(crate) fn cgroup_mounts(suffices: impl Fn(&CgroupLayout) -> bool) -> Result<CgroupLayout> {
    static KNOWN: Cached<CgroupLayout> = Cached::new();
    if let Some(known) = KNOWN.get().filter(|known| is_mounted(known) && suffices(known)) {
        return Ok(known);
    }
    Ok(KNOWN.keep(CgroupLayout::read_mounts()?))
}

/// Whether every hierarchy is still mounted at its path.
fn is_mounted(layout: &CgroupLayout) -> bool {
    let v1 = layout.v1.iter().map(|hierarchy| (&hierarchy.mount, CGROUP_MAGIC));
    let v2 = layout.v2.iter().map(|unified| (&unified.mount, CGROUP2_MAGIC));
    v1.chain(v2).all(|(mount, magic)| {
        let facts = rustix::fs::statfs(mount.as_path());
        facts.is_ok_and(|facts| u64::try_from(facts.f_type) == Ok(magic))
    })
}

/// Whether this process is in the cgroup of `point`. Its list of processes, which can be long, is read once: a process
/// that moves has another path, and so another point.
pub(crate) fn holds_me(point: &TrackingPoint, look: impl FnOnce() -> bool) -> bool {
    static KNOWN: Cached<TrackingPoint> = Cached::new();
    if KNOWN.get().as_ref() == Some(point) {
        return true;
    }
    let holds = look();
    if holds {
        KNOWN.keep(point.clone());
    }
    holds
}
