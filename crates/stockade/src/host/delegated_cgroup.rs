//! A cgroup that a service manager has handed to this process: jails made in it are the manager's to count, to limit
//! and to kill, as everything else of the service.

use rustix::fs::getxattr;

use crate::error::{Context, Operation, Result};
use crate::host::{CgroupLayout, TrackingPoint, controllers_of};
use crate::spec::{CgroupSetting, ParentCgroup};
use crate::sys::cgroup::processes;
use crate::sys::modes::{PUBLIC, make_directory};

/// What systemd sets to `1` on a cgroup whose inside is left to the service: the first from version 236 on where it
/// may, the other from 251 on.
const MARKS: [&str; 2] = ["trusted.delegate", "user.delegate"];

/// Where this process goes. The id of a jail has no dot, so no jail is ever called the same.
const LAUNCHER: &str = ".launcher";

/// The cgroup of version 2 that this process is in, delegated to it (`Delegate=yes` in a unit of systemd) and its own
/// alone.
#[derive(Clone, Debug)]
pub struct DelegatedCgroup {
    point: TrackingPoint,
    parent: ParentCgroup,
    controllers: Vec<String>,
}

impl DelegatedCgroup {
    /// Looks for it; `None` if this process is in none, or if other processes are in it too: controllers are only
    /// handed down by a cgroup without processes, and others are not ours to move.
    ///
    /// # Errors
    /// What the kernel says of reading the mount table or the cgroup's files.
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

    /// Whether jails with these settings can be made in it: it has the controller of each.
    pub fn offers(&self, settings: &[CgroupSetting]) -> bool {
        settings.iter().all(|setting| self.controllers.iter().any(|known| known == setting.controller()))
    }

    /// Moves this process into a cgroup below, so that the delegated one is free to hand its controllers down, and
    /// says which parent jails are to be given.
    ///
    /// # Errors
    /// What the kernel says of making the cgroup or of moving into it.
    pub fn settle(self) -> Result<ParentCgroup> {
        let launcher = self.point.directory().join(LAUNCHER);
        make_directory(launcher.as_path(), PUBLIC).context(Operation::CreateDirectory, &launcher)?;
        let file = launcher.join("cgroup.procs");
        std::fs::write(&file, "0").context(Operation::Write, file)?;
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
