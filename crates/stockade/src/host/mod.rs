//! Facts about this host, read once, and host-wide set-up.
//!
//! [`Host`] is plain data. A plan depends on it and on the specification alone, so a test can write one by hand.

mod cgroups;
mod delegated_cgroup;
mod template_mounts;
mod tracking_cgroup;

use stockade_syscalls::descriptors::hard_limit;

use crate::error::{Context, Operation, Result};
pub(crate) use cgroups::controllers_of;
pub use cgroups::{CgroupLayout, Hierarchy, Unified};
pub use delegated_cgroup::DelegatedCgroup;
pub use template_mounts::{RUNTIME_DIRECTORY, TemplateMounts};
pub use tracking_cgroup::TrackingPoint;

use crate::spec::{HostPath, JailSpec, Layout, Netns, NetnsName};
use crate::sys::access::unsafe_directory;
use crate::sys::netns_users::users_of;
use crate::sys::procfs::{MISC, read};

/// The facts about the host on which a plan depends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The id of this boot. Processes, mounts and namespaces of another boot no longer exist.
    pub boot_id: String,
    /// The minor number of `/dev/userfaultfd`, if the kernel offers it.
    pub userfaultfd_minor: Option<u32>,
    /// The mounted cgroup hierarchies.
    pub cgroups: CgroupLayout,
    /// The hard limit of this process's open file descriptors; `None` if there is none.
    pub open_files: Option<u64>,
    /// The template mount namespace, to copy instead of the host's.
    pub template_mounts: Option<TemplateMounts>,
    /// A directory on the way to the jail that its uid can change, unless that is allowed.
    pub unsafe_directory: Option<HostPath>,
    /// The position of tracking cgroups; `None` if they cannot be created, or if the jail needs none.
    pub tracking: Option<TrackingPoint>,
    /// The network namespace that the jail joins, if it was created for another jail.
    pub shared_netns: Option<NetnsName>,
}

impl Host {
    /// Reads the facts on which a jail of this specification depends.
    ///
    /// # Errors
    /// Returns an error if `/proc/sys/kernel/random/boot_id`, `/proc/misc` or the cgroup mounts cannot be read.
    pub fn read_for(spec: &JailSpec) -> Result<Self> {
        let layout = CgroupLayout::cached_for(spec);
        // When the first process of a pid namespace exits, the kernel kills all others in it.
        let tracking = layout.as_ref().ok().filter(|_| !spec.new_pid_ns).and_then(TrackingPoint::find);
        let cgroups = if CgroupLayout::is_needed_by(spec) { layout? } else { CgroupLayout::default() };
        let (boot_id, userfaultfd_minor) = (crate::sys::cache::boot_id()?, userfaultfd_minor()?);
        let open_files = hard_limit().context(Operation::Inspect, "the limit of file descriptors");
        let (unsafe_directory, open_files) = (unsafe_directory_of(spec)?, open_files?);
        Ok(Self {
            boot_id,
            userfaultfd_minor,
            open_files,
            unsafe_directory,
            shared_netns: shared_netns(&spec.netns),
            tracking,
            ..Self::without_proc(cgroups)
        })
    }

    /// Reads the facts for a jail without a receipt, with known cgroups. They have no boot id, since nothing is
    /// compared with another boot.
    ///
    /// As in Firecracker's jailer, a `/proc/misc` that cannot be read (`/proc` is missing, or mounted with
    /// `subset=pid`) means a jail without `/dev/userfaultfd`.
    pub fn with_cgroups(cgroups: CgroupLayout) -> Self {
        let userfaultfd_minor = userfaultfd_minor().unwrap_or_default();
        Self { userfaultfd_minor, ..Self::without_proc(cgroups) }
    }

    /// The facts that are not in `/proc`.
    fn without_proc(cgroups: CgroupLayout) -> Self {
        Self { cgroups, template_mounts: TemplateMounts::find().ok(), ..Self::default() }
    }
}

/// The minor number of `/dev/userfaultfd`; `None` if the kernel does not offer it.
fn userfaultfd_minor() -> Result<Option<u32>> {
    Ok(minor_of(&read(MISC)?, "userfaultfd"))
}

/// The directory on the way to the jail that its uid can change, unless that is allowed.
fn unsafe_directory_of(spec: &JailSpec) -> Result<Option<HostPath>> {
    // Root's directories are always root's to change.
    if spec.allow_unsafe_base || spec.owner.uid == 0 {
        return Ok(None);
    }
    unsafe_directory(&Layout::new(spec).exec_dir(), spec.owner)
        .or_else(|(directory, cause)| Err(cause).context(Operation::Inspect, directory))
}

fn shared_netns(netns: &Netns) -> Option<NetnsName> {
    let Netns::Join(path) = netns else { return None };
    let name: NetnsName = path.as_path().file_name()?.to_str()?.parse().ok()?;
    (name.path() == *path && !users_of(&name).is_empty()).then_some(name)
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
