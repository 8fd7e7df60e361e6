//! The processes of a jail, and the mounts that its VMM sees.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::state::Receipt;
use crate::sys::cgroup;
use crate::sys::process::StatLine;
use crate::sys::procfs::{read_file, unescape};

/// A process of a jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its pid on the host.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// Its name, which it may choose itself.
    pub name: String,
}

/// A mount as the VMM sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// Where it is.
    pub point: String,
    /// The type of its file system.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it is for reading only.
    pub read_only: bool,
}

/// The monitor, the VMM, and whatever is in the jail's cgroups.
pub(super) fn members(receipt: &Receipt) -> Vec<Member> {
    let Some(vmm) = receipt.vmm_step() else { return Vec::new() };
    let known = [Some(vmm.process), vmm.monitor].into_iter().flatten();
    let alive = known.filter(|process| receipt.is_here() && process.is_alive()).map(|process| process.pid);
    let held = receipt.cgroups().flat_map(|cgroup| cgroup::processes(&cgroup).unwrap_or_default());
    let pids = alive.chain(held.filter(|_| receipt.is_here()));
    let found: BTreeMap<i32, Member> = pids.filter_map(|pid| Some((pid, member(pid)?))).collect();
    found.into_values().collect()
}

fn member(pid: i32) -> Option<Member> {
    let stat = StatLine::of(pid)?;
    let parent = stat.field(4)?.parse().ok()?;
    let name = read_file(format!("/proc/{pid}/comm")).ok()?.trim_end_matches('\n').to_owned();
    Some(Member { pid, parent, name })
}

/// What is mounted where the VMM is; nothing if it does not run.
pub(super) fn mounts(receipt: &Receipt) -> Vec<Mount> {
    let Some(vmm) = receipt.vmm().filter(|vmm| receipt.is_here() && vmm.is_alive()) else {
        return Vec::new();
    };
    let table = std::fs::read(format!("/proc/{}/mountinfo", vmm.pid)).unwrap_or_default();
    String::from_utf8_lossy(&table).lines().filter_map(mount).collect()
}

/// Reads a line of `/proc/PID/mountinfo`.
pub(crate) fn mount(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ');
    let point = unescape(fields.nth(4)?);
    let read_only = fields.next()?.split(',').any(|option| option == "ro");
    let kind = fields.skip_while(|field| *field != "-").nth(1)?.to_owned();
    Some(Mount { point, kind, read_only })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_read_from_its_line() {
        let line = "36 35 98:0 /mnt1 /mnt\\0402 ro,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let read = Mount { point: "/mnt 2".into(), kind: "ext3".into(), read_only: true };
        assert_eq!(mount(line), Some(read));
        assert_eq!(mount("36 35"), None);
    }
}
