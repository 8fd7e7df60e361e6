//! A cgroup that a service manager delegated to this process.
//!
//! Jails created in it count as part of the service: the manager accounts, limits and kills them with it.

use rustix::fs::getxattr;

use crate::error::{Context, Operation, Result};
use crate::host::{CgroupLayout, TrackingPoint, controllers_of};
use crate::spec::{CgroupSetting, ParentCgroup};
use crate::sys::cgroup::{join_file_v2, move_self, processes};
use crate::sys::modes::{PUBLIC, make_directory};

/// Extended attributes that systemd sets to `1` on a delegated cgroup: the first since version 236 if it has the
/// privilege, the other since 251.
const MARKS: [&str; 2] = ["trusted.delegate", "user.delegate"];

/// The cgroup for this process. An id has no dot, so no jail's cgroup has this name.
const LAUNCHER: &str = ".launcher";

/// The cgroup v2 of this process, delegated to it (`Delegate=yes` in a unit of systemd) and without other processes.
#[derive(Clone, Debug)]
pub struct DelegatedCgroup {
    point: TrackingPoint,
    parent: ParentCgroup,
    controllers: Vec<String>,
}

impl DelegatedCgroup {
    /// Finds the delegated cgroup of this process.
    ///
    /// `None` if it is not delegated, or if other processes are in it. Only a cgroup without processes can enable
    /// controllers for child cgroups, and stockade does not move other processes.
    ///
    /// # Errors
    /// Returns an error if the mount table or a file of the cgroup cannot be read.
    pub fn find() -> Result<Option<Self>> {
        let point = TrackingPoint::find(&CgroupLayout::read_mounts()?).filter(|point| point.unified);
        let Some(point) = point.filter(is_delegated) else { return Ok(None) };
        let Some(Ok(parent)) = point.own.to_str().map(str::parse) else { return Ok(None) };
        let directory = point.directory();
        if processes(&directory)?.len() > 1 {
            return Ok(None);
        }
        Ok(Some(Self { controllers: controllers_of(&directory)?, point, parent }))
    }

    /// Whether it has the controller of each setting, so that jails with these settings can be created in it.
    pub fn offers(&self, settings: &[CgroupSetting]) -> bool {
        settings.iter().all(|setting| self.controllers.iter().any(|known| known == setting.controller()))
    }

    /// Moves this process into a child cgroup, and returns the delegated cgroup as the parent for jails.
    ///
    /// Without a process in it, the delegated cgroup can enable its controllers for child cgroups.
    ///
    /// # Errors
    /// Returns an error if the child cgroup cannot be created, or if the kernel refuses the move.
    pub fn settle(self) -> Result<ParentCgroup> {
        let launcher = self.point.directory().join(LAUNCHER);
        make_directory(launcher.as_path(), PUBLIC).context(Operation::CreateDirectory, &launcher)?;
        move_self(&launcher).context(Operation::Write, join_file_v2(&launcher))?;
        Ok(self.parent)
    }
}

fn is_delegated(point: &TrackingPoint) -> bool {
    let directory = point.directory();
    MARKS.iter().any(|name| {
        let mut value = [0; 8];
        getxattr(directory.as_path(), *name, &mut value).is_ok_and(|length| value[..length] == *b"1")
    })
}
