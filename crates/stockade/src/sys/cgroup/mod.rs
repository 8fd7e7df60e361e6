//! Cgroups: their files, their processes, and how they are emptied and removed.

mod empty;
mod freeze;
mod oom;

use std::io::Write;

use rustix::io::Errno;

pub(crate) use empty::{empty_and_remove, is_in_use, kill, kill_members, remove_unused};
pub(crate) use freeze::{Frozen, frozen_by, thaw};
pub(crate) use oom::{EVENTS_V1, EVENTS_V2, oom_kills};

use crate::spec::HostPath;
use crate::sys::error::{Context, Operation, Result, errno};
use crate::sys::procfs::read_file;

/// The processes of a cgroup; one that writes its pid there joins it.
const PROCESSES: &str = "cgroup.procs";

/// The threads of a cgroup v2.
const THREADS: &str = "cgroup.threads";

/// The threads of a cgroup v1; one that writes its id there joins it.
const TASKS: &str = "tasks";

/// In cgroup v2, the controllers that a cgroup enables for its child cgroups.
pub(crate) const SUBTREE_CONTROL: &str = "cgroup.subtree_control";

/// In cgroup v2, whether a cgroup can hold processes. The root has none.
const TYPE: &str = "cgroup.type";

/// In cgroup v2, whether a process is in a cgroup or below it.
const EVENTS: &str = "cgroup.events";

/// In cgroup v2, a write kills everything in a cgroup. Linux has it since 5.14; the root has none.
const KILL: &str = "cgroup.kill";

/// The state of a cgroup in the freezer of cgroup v1.
const FREEZER_STATE: &str = "freezer.state";

/// The file by which the VMM's process joins a cgroup v1.
pub(crate) fn join_file_v1(cgroup: &HostPath) -> HostPath {
    cgroup.join(TASKS)
}

/// The file by which a process joins a cgroup v2.
pub(crate) fn join_file_v2(cgroup: &HostPath) -> HostPath {
    cgroup.join(PROCESSES)
}

/// The file that lists the controllers which a cgroup v2 enables for its child cgroups.
pub(crate) fn subtree_control(cgroup: &HostPath) -> HostPath {
    cgroup.join(SUBTREE_CONTROL)
}

/// Whether a cgroup is the root of the unified hierarchy, in which the rules for processes do not apply.
pub(crate) fn is_root_v2(cgroup: &HostPath) -> bool {
    !cgroup.join(TYPE).as_path().exists()
}

/// Whether a cgroup v2 is part of a threaded subtree: no process can be in a child cgroup.
pub(crate) fn is_threaded(cgroup: &HostPath) -> bool {
    // The root has no type, nor have cgroups v1.
    read_file(cgroup.join(TYPE)).is_ok_and(|kind| kind.trim() != "domain")
}

/// Whether the kernel can kill this cgroup as a whole.
pub(crate) fn has_kill(cgroup: &HostPath) -> bool {
    cgroup.join(KILL).as_path().exists()
}

/// The processes in a cgroup, without those in its child cgroups.
pub(crate) fn processes(cgroup: &HostPath) -> Result<Vec<i32>> {
    ids_in(&cgroup.join(PROCESSES))
}

fn ids_in(file: &HostPath) -> Result<Vec<i32>> {
    match read_file(file) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        // ENODEV: the cgroup was removed between opening and reading.
        Err(e) if matches!(errno(&e), Errno::NOENT | Errno::NODEV) => Ok(Vec::new()),
        Err(e) => Err(e).context(Operation::Read, file),
    }
}

/// Moves this process into a cgroup.
pub(crate) fn move_self(cgroup: &HostPath) -> std::io::Result<()> {
    std::fs::write(join_file_v2(cgroup), "0")
}

/// A process in a cgroup, or a thread in one of a threaded subtree. It is 0 if it is of another pid namespace.
pub(crate) fn first_task(cgroup: &HostPath) -> Result<Option<i32>> {
    match processes(cgroup) {
        // A threaded cgroup has no list of processes.
        Err(error) if error.cause == Errno::OPNOTSUPP => ids_in(&cgroup.join(THREADS)),
        found => found,
    }
    .map(|tasks| tasks.first().copied())
}

/// A cgroup and all below it, each before those below it.
pub(crate) fn with_all_below(cgroup: &HostPath) -> Result<Vec<HostPath>> {
    let mut all = Vec::new();
    for_each_below(cgroup, &mut |below| {
        all.push(below.clone());
        Ok(())
    })?;
    Ok(all)
}

/// The controllers and the path of a line of `/proc/PID/cgroup`: `NUMBER:CONTROLLERS:PATH`.
///
/// The controllers are separated by commas; those of cgroup v2 are empty.
pub(crate) fn parse_membership(line: &str) -> Option<(&str, &str)> {
    line.split_once(':')?.1.split_once(':')
}

/// Writes a file of a cgroup, without creating it.
fn write_existing(file: &HostPath, value: &str) -> std::result::Result<(), Errno> {
    let opened = std::fs::OpenOptions::new().write(true).open(file);
    opened.and_then(|mut file| file.write_all(value.as_bytes())).map_err(|e| errno(&e))
}

fn for_each_below(cgroup: &HostPath, action: &mut dyn FnMut(&HostPath) -> Result<()>) -> Result<()> {
    action(cgroup)?;
    children(cgroup)?.iter().try_for_each(|below| for_each_below(below, action))
}

/// The child cgroups; none if the cgroup does not exist.
fn children(cgroup: &HostPath) -> Result<Vec<HostPath>> {
    let gone = |cause| matches!(cause, Errno::NOENT | Errno::NODEV);
    let entries = match std::fs::read_dir(cgroup) {
        Ok(entries) => entries,
        Err(e) if gone(errno(&e)) => return Ok(Vec::new()),
        Err(e) => return Err(e).context(Operation::Read, cgroup),
    };
    let mut children = Vec::new();
    for entry in entries {
        match entry.and_then(|entry| Ok((entry.file_type()?.is_dir(), entry.path()))) {
            Ok((true, path)) => children.push(path.into()),
            Ok((false, _)) => (),
            Err(e) if gone(errno(&e)) => (),
            Err(e) => return Err(e).context(Operation::Read, cgroup),
        }
    }
    Ok(children)
}
