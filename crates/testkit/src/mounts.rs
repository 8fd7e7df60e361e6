//! Mount tables of this process and of others.

use std::path::PathBuf;

pub use stockade_syscalls::mount_table::Mount;
use stockade_syscalls::mount_table::{OWN_TABLE, read};

/// The mounts of this process, in the order of their creation.
///
/// # Panics
/// Panics if the table cannot be read or parsed.
pub fn mounts() -> Vec<Mount> {
    read(OWN_TABLE).expect("read the mount table of the test")
}

/// The mounts of another process.
///
/// # Panics
/// Panics if the table cannot be read or parsed.
pub fn mounts_of(pid: i32) -> Vec<Mount> {
    read(format!("/proc/{pid}/mountinfo")).expect("read the mount table of a process")
}

/// The lines of another process's mount table, for the fields that [`Mount`] does not have: flags and propagation.
///
/// # Panics
/// Panics if the table cannot be read or is empty.
pub fn mount_lines_of(pid: i32) -> Vec<String> {
    lines(&format!("/proc/{pid}/mountinfo"))
}

/// The lines of this process's mount table that contain a text in any field: in the mount point, the source, or the
/// root of a bind, which [`Mount`] does not have.
///
/// # Panics
/// Panics if the table cannot be read or is empty.
pub fn mount_lines_with(text: &str) -> Vec<String> {
    lines(OWN_TABLE).into_iter().filter(|line| line.contains(text)).collect()
}

fn lines(table: &str) -> Vec<String> {
    let text = std::fs::read_to_string(table).expect("read a mount table");
    assert!(!text.is_empty(), "{table} is empty");
    text.lines().map(str::to_owned).collect()
}

/// The mounted hierarchies of cgroup v1 and v2.
///
/// # Panics
/// Panics if the mount table cannot be read.
pub fn cgroup_mounts() -> Vec<Mount> {
    mounts().into_iter().filter(|mount| matches!(mount.fs_type.as_str(), "cgroup" | "cgroup2")).collect()
}

/// The mount point of the cgroup v1 hierarchy that has this controller.
///
/// # Panics
/// Panics if the mount table cannot be read.
pub fn cgroup_v1_mount(controller: &str) -> Option<PathBuf> {
    let has = |mount: &Mount| {
        mount.fs_type == "cgroup" && mount.fs_options.iter().any(|option| option == controller)
    };
    cgroup_mounts().into_iter().find(has).map(|mount| mount.point)
}

/// The mount point of cgroup v2, which may have few controllers beside cgroup v1.
///
/// # Panics
/// Panics if the mount table cannot be read.
pub fn cgroup_v2_mount() -> Option<PathBuf> {
    cgroup_mounts().into_iter().find(|mount| mount.fs_type == "cgroup2").map(|mount| mount.point)
}
