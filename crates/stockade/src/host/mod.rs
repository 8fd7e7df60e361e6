//! Facts about this host, read once.
//!
//! A plain structure: the plan is worked out from it and from nothing else, and a test can write one by
//! hand.

mod cache;
mod cgroups;
mod delegated_cgroup;
mod template_mounts;
mod tracking_cgroup;

use crate::error::Result;
pub(crate) use cgroups::controllers_of;
pub use cgroups::{CgroupLayout, Hierarchy, Unified};
pub use delegated_cgroup::DelegatedCgroup;
pub use template_mounts::{RUNTIME_DIRECTORY, TemplateMounts};
pub use tracking_cgroup::TrackingPoint;

use crate::spec::{CgroupVersion, JailSpec};
use crate::sys::procfs::read;

/// What a plan needs to know of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Which boot this is: processes, mounts and namespaces of another boot are gone.
    pub boot_id: String,
    /// The minor number of `/dev/userfaultfd`, if the kernel offers it.
    pub userfaultfd_minor: Option<u32>,
    /// The mounted cgroup hierarchies.
    pub cgroups: CgroupLayout,
    /// The mount namespace to copy in the place of the host's, if there is one.
    pub template_mounts: Option<TemplateMounts>,
    /// Where a cgroup can be made that holds a jail's processes together; `None` if nowhere, or if the jail
    /// needs none.
    pub tracking: Option<TrackingPoint>,
}

impl Host {
    /// Reads the facts that a jail of this specification depends on.
    ///
    /// # Errors
    /// What the kernel says of reading `/proc` or the cgroup mounts.
    pub fn read_for(spec: &JailSpec) -> Result<Self> {
        let layout = CgroupLayout::know_for(spec);
        // The first process of a pid namespace takes all others of it along.
        let tracking = layout.as_ref().ok().filter(|_| !spec.new_pid_ns).and_then(TrackingPoint::find);
        // Without a setting a parent may still be joined: one that is named, or the default one of version 2.
        let may_join = match spec.cgroup_version {
            Some(version) => version == CgroupVersion::V2,
            None => spec.parent_cgroup.is_some(),
        };
        let cgroups = if spec.cgroups.is_empty() && !may_join { CgroupLayout::default() } else { layout? };
        Ok(Self { boot_id: crate::sys::cache::boot_id()?, tracking, ..Self::with_cgroups(cgroups)? })
    }

    /// Reads what a jail that leaves no receipt depends on besides its cgroups: nothing of it is compared
    /// with another boot.
    ///
    /// # Errors
    /// What the kernel says of reading `/proc/misc`.
    pub fn with_cgroups(cgroups: CgroupLayout) -> Result<Self> {
        let misc = read("/proc/misc")?;
        let (userfaultfd_minor, template_mounts) =
            (minor_of(&misc, "userfaultfd"), TemplateMounts::find().ok());
        Ok(Self { userfaultfd_minor, cgroups, template_mounts, ..Self::default() })
    }
}

/// Finds `NUMBER NAME` in the text of `/proc/misc`.
fn minor_of(misc: &str, name: &str) -> Option<u32> {
    misc.lines().find_map(|line| {
        let (number, device) = line.trim().split_once(' ')?;
        (device == name).then(|| number.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minor_is_found_by_the_whole_name() {
        let misc = "126 userfaultfd\n 10 userfaultfd2\n232 kvm\n";
        assert_eq!(minor_of(misc, "userfaultfd"), Some(126));
        assert_eq!(minor_of(misc, "kvm"), Some(232));
        assert_eq!(minor_of(misc, "vhost"), None);
    }
}
