//! Why a process does not go on: it does not exit although it was killed, or does not get to its exec.

use stockade_syscalls::namespace::namespace_file;

use crate::spec::HostPath;
use crate::sys::cgroup::{Frozen, frozen_by, parse_membership};
use crate::sys::file_id::FileId;
use crate::sys::process::{StatLine, file_of, text_of};
use crate::sys::{cache, mounts};

/// Why a process that was killed has not exited, for a message behind its pid.
pub(crate) fn why_alive(pid: i32) -> String {
    if let Some(frozen) = frozen_process(pid) {
        return format!("'{}' freezes it; write {} to that file", frozen.file, frozen.thaw);
    }
    if let Some(zombie) = zombie_in_namespace_of(pid) {
        return format!("the first process of its pid namespace waits for {zombie}");
    }
    why_stopped(pid).unwrap_or_else(|| match state(pid).as_deref() {
        Some("D") => "it is in a system call that no signal ends (state D)".to_owned(),
        Some("Z") => format!("it is {}", zombie(pid)),
        Some(state) => format!("its state is {state}"),
        None => "its state cannot be read".to_owned(),
    })
}

/// Why a process that another has just started does nothing, if that can be seen.
pub(crate) fn why_stopped(pid: i32) -> Option<String> {
    match state(pid).as_deref() {
        Some("t") => Some(match tracer(pid) {
            Some(tracer) => format!("it is traced by {}", name_of(tracer)),
            None => "it is traced (state t)".to_owned(),
        }),
        Some("T") => Some("it is stopped (state T)".to_owned()),
        _ => None,
    }
}

/// What freezes a process, in cgroup v2 or in the freezer of cgroup v1.
pub(crate) fn frozen_process(pid: i32) -> Option<Frozen> {
    let memberships = text_of(pid, "cgroup").ok()?;
    let mounts = mounts::table().ok()?;
    memberships.lines().filter_map(parse_membership).find_map(|(controllers, path)| {
        let is_of = |mount: &mounts::Mount| match mount.fs_type.as_str() {
            "cgroup2" => controllers.is_empty(),
            "cgroup" => controllers == "freezer" && mount.fs_options.iter().any(|option| option == "freezer"),
            _ => false,
        };
        let hierarchy = HostPath::from(mounts.iter().find(|mount| is_of(mount))?.point.clone());
        frozen_by(&hierarchy.join(path.trim_start_matches('/'))).ok()?
    })
}

/// A zombie in the pid namespace of this process. The first process of a namespace exits only after all others were
/// waited for, and one that has entered the namespace has a parent outside of it.
fn zombie_in_namespace_of(pid: i32) -> Option<String> {
    let namespace = FileId::at(file_of(pid, "ns/pid").ok()?).ok()?;
    if FileId::at(namespace_file("self", "pid")) == Ok(namespace) {
        return None;
    }
    // A procfs of another pid namespace lists other numbers.
    let others = cache::is_own_procfs().then(|| std::fs::read_dir("/proc").ok())??.flatten();
    let pids = others.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_in = |other: &i32| FileId::at(namespace_file(*other, "pid")) == Ok(namespace);
    let found = pids.filter(|other| *other != pid && state(*other).as_deref() == Some("Z")).find(is_in)?;
    Some(format!("process {found}, {}", zombie(found)))
}

fn zombie(pid: i32) -> String {
    let parent = StatLine::of(pid).and_then(|line| line.field(4)?.parse::<i32>().ok());
    match parent {
        Some(parent) => format!("a zombie of {}; end or continue that process", name_of(parent)),
        None => "a zombie".to_owned(),
    }
}

/// A process with its name and its state, if it is stopped.
fn name_of(pid: i32) -> String {
    let name = text_of(pid, "comm").unwrap_or_default();
    let name: String = name.trim_end().chars().flat_map(char::escape_default).collect();
    match state(pid).as_deref() {
        Some(state @ ("T" | "t")) => format!("process {pid} ({name}, state {state})"),
        _ => format!("process {pid} ({name})"),
    }
}

fn tracer(pid: i32) -> Option<i32> {
    let status = text_of(pid, "status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?;
    line.trim().parse().ok().filter(|tracer| *tracer != 0)
}

fn state(pid: i32) -> Option<String> {
    StatLine::of(pid)?.field(3).map(str::to_owned)
}
