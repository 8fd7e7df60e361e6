//! Emptying and removing a cgroup.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::spec::HostPath;
use crate::sys::error::{Context, Operation, Result, errno};
use crate::sys::process::{KILL_TIMEOUT, PidFd, remaining};
use crate::sys::procfs::read_file;
use crate::sys::remove_tree::Removal;

/// The processes in a cgroup itself, not in those below it.
pub(crate) fn processes(cgroup: &HostPath) -> Result<Vec<i32>> {
    let file = cgroup.join("cgroup.procs");
    match read_file(&file) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        // ENODEV: removed between opening and reading.
        Err(e) if matches!(errno(&e), Errno::NOENT | Errno::NODEV) => Ok(Vec::new()),
        Err(e) => Err(e).context(Operation::Read, file),
    }
}

/// Whether a process is in a cgroup or below it.
pub(crate) fn is_in_use(cgroup: &HostPath) -> Result<bool> {
    let mut used = false;
    for_each_below(cgroup, &mut |below| {
        used |= !processes(below)?.is_empty();
        Ok(())
    })?;
    Ok(used)
}

/// Kills what is in a cgroup and below, waits for its end, and removes the cgroups bottom up. The parent
/// stays: other jails may be in it.
pub(crate) fn empty_and_remove(cgroup: &HostPath) -> Result<Removal> {
    // One that nobody is in any more, as that of a VMM that has ended by itself, needs no more.
    match rustix::fs::rmdir(cgroup.as_path()) {
        Ok(()) => return Ok(Removal::Removed),
        Err(Errno::NOENT) => return Ok(Removal::NeverThere),
        Err(_) => (),
    }
    let deadline = Instant::now() + KILL_TIMEOUT;
    empty(cgroup, deadline)?;
    loop {
        match remove_bottom_up(cgroup) {
            Ok(()) => return Ok(Removal::Removed),
            Err(Errno::NOENT) => return Ok(Removal::NeverThere),
            Err(Errno::BUSY) if Instant::now() < deadline => {
                wait_a_moment();
                kill_one_by_one(cgroup, deadline)?;
            }
            Err(Errno::BUSY) => {
                return Ok(Removal::Left(cgroup.clone(), "its processes do not end".to_owned()));
            }
            Err(cause) => return Err(cause).context(Operation::Remove, cgroup),
        }
    }
}

/// Kills what is in a cgroup and below, and waits for its end.
fn empty(cgroup: &HostPath, deadline: Instant) -> Result<()> {
    if !kill_at_once(cgroup)? {
        kill_frozen(cgroup)?;
        kill_one_by_one(cgroup, deadline)?;
    }
    wait_until_unpopulated(cgroup, deadline)
}

/// The same, and leaves the cgroup; what has no end within five seconds is left too.
pub(crate) fn kill_members(cgroup: &HostPath) -> Result<()> {
    empty(cgroup, Instant::now() + KILL_TIMEOUT)
}

/// The kernel's own way, from 5.14 on in version 2: everything below, forks included. False if there is
/// none.
fn kill_at_once(cgroup: &HostPath) -> Result<bool> {
    let file = cgroup.join("cgroup.kill");
    match write_existing(&file, "1") {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(cause) => Err(cause).context(Operation::Kill, file),
    }
}

/// In the freezer of version 1: stops everything, so that nothing forks any more, kills it, and lets it go on
/// to its end. Who is killed here leaves it stopped, which the next to try undoes. Does nothing elsewhere.
fn kill_frozen(cgroup: &HostPath) -> Result<()> {
    if !set_freezer(cgroup, "FROZEN")? {
        return Ok(());
    }
    let killed = kill_until_none_is_new(cgroup);
    set_freezer(cgroup, "THAWED")?;
    killed
}

/// One that was not stopped yet when it was listed may have left a child, which is born stopped.
fn kill_until_none_is_new(cgroup: &HostPath) -> Result<()> {
    let mut known = BTreeSet::new();
    loop {
        let before = known.len();
        kill_all(cgroup, &mut |process| {
            known.insert(process.pid());
        })?;
        if known.len() == before {
            return Ok(());
        }
    }
}

/// Sets the state of a cgroup of the freezer and of all below it; false in any other hierarchy.
fn set_freezer(cgroup: &HostPath, state: &str) -> Result<bool> {
    let file = cgroup.join("freezer.state");
    match write_existing(&file, state) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT | Errno::NODEV) => Ok(false),
        Err(cause) => Err(cause).context(Operation::Write, file),
    }
}

/// Writes a file of a cgroup, without creating it.
fn write_existing(file: &HostPath, value: &str) -> std::result::Result<(), Errno> {
    let opened = std::fs::OpenOptions::new().write(true).open(file);
    opened.and_then(|mut file| file.write_all(value.as_bytes())).map_err(|e| errno(&e))
}

/// Kills until nothing is left: a process that forks is caught by a later round.
fn kill_one_by_one(cgroup: &HostPath, deadline: Instant) -> Result<()> {
    while Instant::now() < deadline {
        let mut ending = Vec::new();
        kill_all(cgroup, &mut |process| {
            ending.push(process);
            ending.truncate(MOST_HELD);
        })?;
        if ending.is_empty() {
            return Ok(());
        }
        for process in ending {
            process.wait_for_exit(Some(deadline))?;
        }
    }
    Ok(())
}

/// How many processes are held at once; each takes a descriptor.
const MOST_HELD: usize = 256;

/// Kills what is in a cgroup and below it now.
fn kill_all(cgroup: &HostPath, killed: &mut dyn FnMut(PidFd)) -> Result<()> {
    for_each_below(cgroup, &mut |below| {
        for pids in processes(below)?.chunks(MOST_HELD) {
            let opened = pids.iter().filter_map(|pid| PidFd::open(*pid).transpose());
            let opened = opened.collect::<Result<Vec<_>>>()?;
            // Looked at again with the descriptors held: a pid may be another's by now.
            let still_there = processes(below)?;
            for process in opened.into_iter().filter(|process| still_there.contains(&process.pid())) {
                process.signal(Signal::KILL)?;
                killed(process);
            }
        }
        Ok(())
    })
}

/// Between two looks at a cgroup that is not empty yet. Only version 1 comes here: a task leaves its cgroup a
/// little after its pidfd has told of its end, and there is nothing to wait at for that. Where the jail has a
/// leash in the unified hierarchy that was waited for first, and no task is left in any other.
fn wait_a_moment() {
    // A poll of nothing, which waits in the kernel; it cannot fail but for a signal, which shortens it.
    let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 200_000 }));
}

/// Version 2 tells when a cgroup and all below it are empty; version 1 has no such file.
fn wait_until_unpopulated(cgroup: &HostPath, deadline: Instant) -> Result<()> {
    let file = cgroup.join("cgroup.events");
    let Ok(events) = File::open(&file) else { return Ok(()) };
    let events = OwnedFd::from(events);
    loop {
        let mut text = [0; 256];
        let length = match rustix::io::pread(&events, &mut text, 0) {
            Ok(length) => length,
            Err(Errno::NODEV) => return Ok(()),
            Err(cause) => return Err(cause).context(Operation::Read, file),
        };
        let populated = String::from_utf8_lossy(&text[..length]).lines().any(|line| line == "populated 1");
        if !populated || Instant::now() >= deadline {
            return Ok(());
        }
        let mut wait = [PollFd::new(&events, PollFlags::PRI)];
        match poll(&mut wait, Some(&remaining(deadline))) {
            Ok(_) | Err(Errno::INTR) => (),
            Err(cause) => return Err(cause).context(Operation::Wait, file),
        }
    }
}

fn remove_bottom_up(cgroup: &HostPath) -> std::result::Result<(), Errno> {
    for below in children(cgroup) {
        match remove_bottom_up(&below) {
            Ok(()) | Err(Errno::NOENT) => (),
            Err(cause) => return Err(cause),
        }
    }
    rustix::fs::rmdir(cgroup.as_path())
}

fn for_each_below(cgroup: &HostPath, visit: &mut dyn FnMut(&HostPath) -> Result<()>) -> Result<()> {
    visit(cgroup)?;
    children(cgroup).iter().try_for_each(|below| for_each_below(below, visit))
}

fn children(cgroup: &HostPath) -> Vec<HostPath> {
    let Ok(entries) = std::fs::read_dir(cgroup) else { return Vec::new() };
    let directories = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path().into()).collect()
}
