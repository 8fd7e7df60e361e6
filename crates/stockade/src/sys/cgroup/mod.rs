//! Cgroups: their processes, and how they are emptied and removed.

mod empty;

use std::io::Write;

use rustix::io::Errno;

pub(crate) use empty::{empty_and_remove, kill_members};

use crate::spec::HostPath;
use crate::sys::error::{Context, Operation, Result, errno};
use crate::sys::procfs::read_file;

/// The processes in a cgroup, without those in its child cgroups.
pub(crate) fn processes(cgroup: &HostPath) -> Result<Vec<i32>> {
    let file = cgroup.join("cgroup.procs");
    match read_file(&file) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        // ENODEV: the cgroup was removed between opening and reading.
        Err(e) if matches!(errno(&e), Errno::NOENT | Errno::NODEV) => Ok(Vec::new()),
        Err(e) => Err(e).context(Operation::Read, file),
    }
}

/// Moves this process into a cgroup.
pub(crate) fn move_self(cgroup: &HostPath) -> std::io::Result<()> {
    std::fs::write(cgroup.join("cgroup.procs"), "0")
}

/// Whether a process is in a cgroup or in one below it.
pub(crate) fn is_in_use(cgroup: &HostPath) -> Result<bool> {
    let mut used = false;
    for_each_below(cgroup, &mut |below| {
        used |= !processes(below)?.is_empty();
        Ok(())
    })?;
    Ok(used)
}

/// Writes a file of a cgroup, without creating it.
fn write_existing(file: &HostPath, value: &str) -> std::result::Result<(), Errno> {
    let opened = std::fs::OpenOptions::new().write(true).open(file);
    opened.and_then(|mut file| file.write_all(value.as_bytes())).map_err(|e| errno(&e))
}

fn for_each_below(cgroup: &HostPath, action: &mut dyn FnMut(&HostPath) -> Result<()>) -> Result<()> {
    action(cgroup)?;
    children(cgroup).iter().try_for_each(|below| for_each_below(below, action))
}

fn children(cgroup: &HostPath) -> Vec<HostPath> {
    let Ok(entries) = std::fs::read_dir(cgroup) else { return Vec::new() };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path().into()).collect()
}
