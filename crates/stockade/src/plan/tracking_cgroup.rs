//! The step that makes a jail's leash.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::host::TrackingPoint;
use crate::spec::{HostPath, Layout};
use crate::steps::{CgroupV1, CgroupV2, Step};

/// The step that makes the leash of a jail.
pub(crate) fn step_of(point: &TrackingPoint, jail: &Layout) -> Step {
    let path = point.own.join(name(jail));
    let (hierarchy, settings, exclusive) = (point.hierarchy.clone(), Vec::new(), true);
    if point.unified {
        unified(hierarchy, path)
    } else {
        CgroupV1 { hierarchy, path, settings, exclusive }.into()
    }
}

/// What a jail's leash is called: by the jail's id, and by where the jail is, since another state directory may
/// have one of the same id.
pub(crate) fn name(jail: &Layout) -> String {
    // FNV-1a: the same in every version, and nobody's secret.
    let place = jail.jail_dir();
    let hash = place
        .as_path()
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    format!("stockade-{}-{hash:08x}", jail.id())
}

/// A leash in the unified hierarchy.
pub(crate) fn unified(hierarchy: HostPath, path: PathBuf) -> Step {
    let (controllers, settings) = (Vec::new(), Vec::new());
    CgroupV2 { hierarchy, path, controllers, settings, exclusive: true }.into()
}

/// Whether a step makes a leash: any other cgroup has settings.
pub(crate) fn is_tracking_cgroup(step: &Step) -> bool {
    match step {
        Step::CgroupV1(cgroup) => cgroup.settings.is_empty(),
        Step::CgroupV2(cgroup) => cgroup.settings.is_empty(),
        _ => false,
    }
}
