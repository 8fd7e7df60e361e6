//! The processes of a jail, and the mounts that its VMM sees.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::spec::Known;
use crate::spec::known::known;
use crate::state::Receipt;
use crate::sys::process::{self, StatLine, exists, text_of};
use crate::sys::{cgroup, mounts};

/// A process of a jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its pid on the host.
    pub pid: i32,
    /// The pid of its parent; 0 if it cannot be read.
    pub parent: i32,
    /// Its name (`/proc/PID/comm`), which the process can change; empty if it cannot be read.
    pub name: String,
}

/// A mount as the VMM sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// The mount point.
    pub point: String,
    /// The type of its filesystem.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it is read-only.
    pub read_only: bool,
}

/// The monitor, the VMM, and all processes in the jail's cgroups.
pub(super) fn members(receipt: &Receipt) -> Vec<Member> {
    let Some(vmm) = receipt.vmm_step() else { return Vec::new() };
    let known = [Some(vmm.process), vmm.monitor].into_iter().flatten();
    let alive = known.filter(|process| receipt.is_here() && process.is_alive()).map(|process| process.pid);
    let in_cgroups = receipt.cgroups().flat_map(|cgroup| cgroup::processes(&cgroup).unwrap_or_default());
    let pids = alive.chain(in_cgroups.filter(|_| receipt.is_here()));
    let found: BTreeMap<i32, Member> = pids.filter_map(|pid| Some((pid, member(pid)?))).collect();
    found.into_values().collect()
}

fn member(pid: i32) -> Option<Member> {
    let parent = StatLine::of(pid).and_then(|stat| stat.field(4)?.parse().ok());
    let name = text_of(pid, "comm").ok();
    // A procfs can hide a process.
    let is_known = parent.is_some() && name.is_some();
    let name = name.unwrap_or_default().trim_end_matches('\n').to_owned();
    (is_known || exists(pid)).then(|| Member { pid, parent: parent.unwrap_or(0), name })
}

/// The mounts in the VMM's mount namespace; none if the VMM does not run.
pub(super) fn mounts_of(receipt: &Receipt) -> Known<Vec<Mount>> {
    let Some(vmm) = receipt.vmm().filter(|vmm| receipt.is_here() && vmm.is_alive()) else {
        return Known::default();
    };
    known(process::mounts_of(vmm.pid)).map(|mounts| mounts.iter().map(Mount::from).collect())
}

impl From<&mounts::Mount> for Mount {
    fn from(mount: &mounts::Mount) -> Self {
        let point = mount.point.to_string_lossy().into_owned();
        Self { point, kind: mount.fs_type.clone(), read_only: mount.read_only }
    }
}
