//! The processes of a jail, and the mounts that its VMM sees.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::state::Receipt;
use crate::sys::process::StatLine;
use crate::sys::procfs::{process_file, read_file};
use crate::sys::{cgroup, mounts};

/// A process of a jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its pid on the host.
    pub pid: i32,
    /// The pid of its parent.
    pub parent: i32,
    /// Its name (`/proc/PID/comm`), which the process can change.
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
    let stat = StatLine::of(pid)?;
    let parent = stat.field(4)?.parse().ok()?;
    let name = read_file(process_file(pid, "comm")).ok()?.trim_end_matches('\n').to_owned();
    Some(Member { pid, parent, name })
}

/// The mounts in the VMM's mount namespace; none if the VMM does not run.
pub(super) fn mounts_of(receipt: &Receipt) -> Vec<Mount> {
    let Some(vmm) = receipt.vmm().filter(|vmm| receipt.is_here() && vmm.is_alive()) else {
        return Vec::new();
    };
    mounts::of_process(vmm.pid).unwrap_or_default().iter().map(Mount::from).collect()
}

impl From<&mounts::Mount> for Mount {
    fn from(mount: &mounts::Mount) -> Self {
        let point = mount.point.to_string_lossy().into_owned();
        Self { point, kind: mount.fs_type.clone(), read_only: mount.read_only }
    }
}
