//! The step of a jail's tracking cgroup.

use std::os::unix::ffi::OsStrExt;

use crate::host::TrackingPoint;
use crate::spec::Layout;
use crate::steps::{CgroupV1, CgroupV2, Step};

/// The step that creates the tracking cgroup of a jail.
pub(crate) fn step_of(point: &TrackingPoint, jail: &Layout) -> Step {
    let path = point.own.join(name(jail));
    let (hierarchy, settings, exclusive) = (point.hierarchy.clone(), Vec::new(), true);
    if point.unified {
        CgroupV2 { hierarchy, path, controllers: Vec::new(), settings, exclusive }.into()
    } else {
        CgroupV1 { hierarchy, path, settings, exclusive }.into()
    }
}

/// The name of a jail's tracking cgroup, from the jail's id and a hash of its directory: another state directory may
/// have a jail with the same id.
fn name(jail: &Layout) -> String {
    // FNV-1a: stable between versions, and no secret.
    let directory = jail.jail_dir();
    let hash = directory
        .as_path()
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    format!("stockade-{}-{hash:08x}", jail.id())
}

/// Whether a step creates a tracking cgroup: all other cgroups have settings.
pub(crate) fn is_tracking_cgroup(step: &Step) -> bool {
    match step {
        Step::CgroupV1(cgroup) => cgroup.settings.is_empty(),
        Step::CgroupV2(cgroup) => cgroup.settings.is_empty(),
        _ => false,
    }
}
