//! The tracking cgroup: a cgroup without limits that holds the processes of a jail.
//!
//! A process cannot leave its cgroup by a new session, parent, root or namespace: a move needs files that only root may
//! write. The tracking cgroup is below the launcher's cgroup, so that the launcher's limits apply to the VMM too.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};

use super::CgroupLayout;
use crate::spec::HostPath;
use crate::sys::cache::Cached;
use crate::sys::cgroup::{is_threaded, parse_membership, processes};
use crate::sys::procfs::read;

/// The position of tracking cgroups on this host: below the cgroup of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackingPoint {
    /// The mount point of the hierarchy.
    pub hierarchy: HostPath,
    /// The cgroup of this process in the hierarchy.
    pub own: PathBuf,
    /// Whether it is the unified hierarchy; otherwise it is the freezer of cgroup v1.
    pub unified: bool,
}

impl TrackingPoint {
    /// Finds the position in the unified hierarchy, which can kill a cgroup as a whole, or else in the freezer, which
    /// can stop one. `None` if this process may not create cgroups below its own.
    pub(crate) fn find(cgroups: &CgroupLayout) -> Option<Self> {
        let own = read("/proc/self/cgroup").ok()?;
        let unified = cgroups.v2.as_ref().map(|unified| (&unified.mount, true));
        let freezer = cgroups.v1_with("freezer").map(|freezer| (&freezer.mount, false));
        [unified, freezer].into_iter().flatten().find_map(|(hierarchy, unified)| {
            let own = own_path(&own, unified)?;
            let point = Self { hierarchy: hierarchy.clone(), own, unified };
            point.is_usable().then_some(point)
        })
    }

    /// The cgroup of this process on the host.
    pub(crate) fn directory(&self) -> HostPath {
        self.hierarchy.join(&self.own)
    }

    /// Whether the path is valid, which it may not be in a container, and whether a process can be created below it.
    fn is_usable(&self) -> bool {
        let directory = self.directory();
        let writable = rustix::fs::accessat(CWD, directory.as_path(), Access::WRITE_OK, AtFlags::EACCESS);
        let myself = rustix::process::getpid().as_raw_nonzero().get();
        let holds_me = || processes(&directory).is_ok_and(|pids| pids.contains(&myself));
        let holds_me = || self.is_own(holds_me);
        writable.is_ok() && !is_threaded(&directory) && holds_me()
    }

    /// Whether this process is in this cgroup. The list of processes, which can be long, is read once: a process that
    /// moves has another path, and so another point.
    fn is_own(&self, look: impl FnOnce() -> bool) -> bool {
        static KNOWN: Cached<TrackingPoint> = Cached::new();
        if KNOWN.get().as_ref() == Some(self) {
            return true;
        }
        let holds = look();
        if holds {
            KNOWN.keep(self.clone());
        }
        holds
    }
}

/// The path of this process's cgroup, from the text of `/proc/self/cgroup`.
fn own_path(text: &str, unified: bool) -> Option<PathBuf> {
    text.lines().find_map(|line| {
        let (controllers, path) = parse_membership(line)?;
        let wanted = if unified { "" } else { "freezer" };
        let path = Path::new(path.strip_prefix('/')?);
        // A cgroup outside of this cgroup namespace has no usable path.
        let inside = !path.components().any(|part| part == std::path::Component::ParentDir);
        (controllers.split(',').any(|name| name == wanted) && inside).then(|| path.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_cgroup_is_found_by_its_hierarchy() {
        let text = "9:name=systemd:/\n6:cpu,freezer:/a:b\n0::/user.slice/x\n";
        assert_eq!(own_path(text, true), Some("user.slice/x".into()));
        assert_eq!(own_path(text, false), Some("a:b".into()));
        assert_eq!(own_path("0::/../outside\n", true), None);
        assert_eq!(own_path("4:memory:/\n", true), None);
    }
}
