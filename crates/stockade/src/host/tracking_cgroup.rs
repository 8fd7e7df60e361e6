//! The leash: a cgroup without limits, which does nothing but hold a jail's processes together.
//!
//! It is the one trait of a process that neither a new session, a new parent, a new root nor a namespace of
//! its own sheds, since moving between cgroups needs files that only root may write. It lies below the cgroup
//! of whoever launches the VMM, so that what limits the launcher limits the VMM too.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};

use super::{CgroupLayout, cache};
use crate::spec::HostPath;
use crate::sys::procfs::read;

/// Where on this host a leash can be made: below the cgroup of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackingPoint {
    /// Where the hierarchy is mounted.
    pub hierarchy: HostPath,
    /// The cgroup of this process in it.
    pub own: PathBuf,
    /// Whether it is the unified hierarchy; otherwise it is the freezer of version 1.
    pub unified: bool,
}

impl TrackingPoint {
    /// The unified hierarchy, which can kill a cgroup as a whole; where it is not mounted the freezer, which can
    /// stop one. `None` if this process may not make cgroups below its own.
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

    /// Whether the path is right, as in a container it may not be, and a process can be born below it.
    fn is_usable(&self) -> bool {
        let directory = self.directory();
        let writable = rustix::fs::accessat(CWD, directory.as_path(), Access::WRITE_OK, AtFlags::EACCESS);
        let myself = rustix::process::getpid().as_raw_nonzero().get();
        let holds_me = || crate::sys::cgroup::processes(&directory).is_ok_and(|pids| pids.contains(&myself));
        let holds_me = || cache::holds_me(self, holds_me);
        // Below one that tells threads apart there is no place for processes. The root has no type, nor has version 1.
        let kind = std::fs::read_to_string(directory.join("cgroup.type"));
        let whole = kind.map_or(true, |kind| kind.trim() == "domain");
        writable.is_ok() && whole && holds_me()
    }
}

/// The path of this process's cgroup, from the text of `/proc/self/cgroup`: `NUMBER:CONTROLLERS:PATH`.
fn own_path(text: &str, unified: bool) -> Option<PathBuf> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let wanted = if unified { "" } else { "freezer" };
        let path = Path::new(path.strip_prefix('/')?);
        // One outside of this cgroup namespace cannot be named.
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
