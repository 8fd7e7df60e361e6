//! Emptying and removing cgroups.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use stockade_syscalls::poll::wait_until;

use super::{
    EVENTS, FREEZER_STATE, KILL, children, first_task, for_each_below, processes, thaw, write_existing,
};
use crate::spec::HostPath;
use crate::sys::error::{Context, Operation, Result, errno};
use crate::sys::process::{KILL_TIMEOUT, PidFd};
use crate::sys::remove_tree::Removal;
use crate::sys::stuck::why_alive;

/// Kills the processes in a cgroup and below, and removes the cgroups bottom up.
///
/// The parent stays: other jails may be in it.
pub(crate) fn empty_and_remove(cgroup: &HostPath, deadline: Instant) -> Result<Removal> {
    // An empty cgroup, for example after a normal exit, can be removed at once.
    match rustix::fs::rmdir(cgroup.as_path()) {
        Ok(()) => return Ok(Removal::Removed),
        Err(Errno::NOENT) => return Ok(Removal::NeverThere),
        Err(_) => (),
    }
    kill_members(cgroup, deadline)?;
    loop {
        match remove_bottom_up(cgroup) {
            Ok(()) => return Ok(Removal::Removed),
            Err(error) => match error.cause {
                Errno::NOENT => return Ok(Removal::NeverThere),
                Errno::BUSY if Instant::now() < deadline => {
                    pause();
                    kill_one_by_one(cgroup, deadline)?;
                }
                Errno::BUSY => return Ok(Removal::Left(cgroup.clone(), held_by(cgroup)?)),
                _ => return Err(error),
            },
        }
    }
}

/// Why a cgroup cannot be removed although its processes were killed.
fn held_by(cgroup: &HostPath) -> Result<String> {
    Ok(match member_of(cgroup)? {
        Some(pid) => format!("process {pid} does not exit: {}", why_alive(pid)),
        None => "the kernel still uses it".to_owned(),
    })
}

/// Removes a cgroup without processes, and those below it. No process is killed.
pub(crate) fn remove_unused(cgroup: &HostPath) -> Result<Removal> {
    let deadline = Instant::now() + KILL_TIMEOUT;
    loop {
        match remove_bottom_up(cgroup) {
            Ok(()) => return Ok(Removal::Removed),
            Err(error) => match error.cause {
                Errno::NOENT => return Ok(Removal::NeverThere),
                // A process is about to leave it, or has just joined it.
                Errno::BUSY if Instant::now() < deadline && !is_in_use(cgroup)? => pause(),
                Errno::BUSY => return Ok(Removal::Left(cgroup.clone(), "a process is in it".to_owned())),
                _ => return Err(error),
            },
        }
    }
}

/// Whether a process is in a cgroup or in one below it.
pub(crate) fn is_in_use(cgroup: &HostPath) -> Result<bool> {
    let mut used = false;
    for_each_below(cgroup, &mut |below| {
        used |= first_task(below)?.is_some();
        Ok(())
    })?;
    Ok(used)
}

/// Kills the processes in a cgroup and below, frozen ones too, without waiting for their exit.
pub(crate) fn kill(cgroup: &HostPath) -> Result<()> {
    if !kill_at_once(cgroup)? {
        kill_frozen(cgroup)?;
        kill_all(cgroup, &mut |_| ())?;
    }
    Ok(())
}

/// Kills the processes in a cgroup and below, and waits until they have exited. Returns one that has not.
pub(crate) fn kill_members(cgroup: &HostPath, deadline: Instant) -> Result<Option<i32>> {
    // One kill of a whole cgroup v2 is enough. It also kills threaded cgroups, which have no list of processes.
    if !kill_at_once(cgroup)? {
        kill_frozen(cgroup)?;
        kill_one_by_one(cgroup, deadline)?;
    }
    wait_until_unpopulated(cgroup, deadline)?;
    member_of(cgroup)
}

/// A process in a cgroup or below it.
fn member_of(cgroup: &HostPath) -> Result<Option<i32>> {
    let mut member = None;
    for_each_below(cgroup, &mut |below| {
        member = member.or(first_task(below)?);
        Ok(())
    })?;
    Ok(member)
}

/// Kills everything in a cgroup v2 and below, including processes that fork at this moment.
///
/// The cgroup can only be removed then: at least Linux 6.18 kills every process that is cloned into it later.
///
/// Returns false if the kernel has no `cgroup.kill` (before Linux 5.14, or cgroup v1).
fn kill_at_once(cgroup: &HostPath) -> Result<bool> {
    let file = cgroup.join(KILL);
    match write_existing(&file, "1") {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(cause) => Err(cause).context(Operation::Kill, file),
    }
}

/// Freezes a cgroup of the cgroup v1 freezer, so that no process forks, kills the processes, and thaws it.
///
/// Does nothing in other hierarchies. If this process is killed here, the cgroup stays frozen until the next attempt
/// thaws it.
fn kill_frozen(cgroup: &HostPath) -> Result<()> {
    if !set_freezer(cgroup, "FROZEN")? {
        return Ok(());
    }
    let killed = kill_until_none_is_new(cgroup);
    thaw(cgroup)?;
    killed
}

/// Repeats the kill while it finds new processes: one that was not frozen yet when it was listed may have forked. Its
/// child starts frozen.
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

/// Sets the freezer state of a cgroup and of all below it; false in other hierarchies.
fn set_freezer(cgroup: &HostPath, state: &str) -> Result<bool> {
    let file = cgroup.join(FREEZER_STATE);
    match write_existing(&file, state) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT | Errno::NODEV) => Ok(false),
        Err(cause) => Err(cause).context(Operation::Write, file),
    }
}

/// Kills until no process is left: a later round catches the children of a process that forks.
fn kill_one_by_one(cgroup: &HostPath, deadline: Instant) -> Result<()> {
    while Instant::now() < deadline {
        let mut exiting = Vec::new();
        kill_all(cgroup, &mut |process| {
            exiting.push(process);
            exiting.truncate(MOST_HELD);
        })?;
        if exiting.is_empty() {
            return Ok(());
        }
        for process in exiting {
            process.wait_for_exit(Some(deadline))?;
        }
    }
    Ok(())
}

/// How many processes are held open at once; each takes a file descriptor.
const MOST_HELD: usize = 256;

/// Kills the present processes in a cgroup and below.
fn kill_all(cgroup: &HostPath, killed: &mut dyn FnMut(PidFd)) -> Result<()> {
    for_each_below(cgroup, &mut |below| {
        for pids in processes(below)?.chunks(MOST_HELD) {
            let opened = pids.iter().filter_map(|pid| PidFd::open(*pid).transpose());
            let opened = opened.collect::<Result<Vec<_>>>()?;
            // Read again with the pidfds held: a pid may have been reused before it was opened.
            let members = processes(below)?;
            for process in opened.into_iter().filter(|process| members.contains(&process.pid())) {
                process.signal(Signal::KILL)?;
                killed(process);
            }
        }
        Ok(())
    })
}

/// Pauses before the next attempt to remove a cgroup that is not empty yet.
///
/// Only cgroup v1 needs this: a task leaves its cgroup shortly after its pidfd becomes readable, and nothing
/// signals that moment. If the jail has a tracking cgroup in the unified hierarchy, the teardown empties that
/// one first, and no task is left in the others.
fn pause() {
    // A poll of no file waits in the kernel. Only a signal can interrupt it, which shortens the pause.
    let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 200_000 }));
}

/// Waits until a cgroup v2 and all below it are empty. In cgroup v1, which has no such file, it returns at once.
fn wait_until_unpopulated(cgroup: &HostPath, deadline: Instant) -> Result<()> {
    let file = cgroup.join(EVENTS);
    let events = match File::open(&file) {
        Ok(events) => OwnedFd::from(events),
        Err(e) if matches!(errno(&e), Errno::NOENT | Errno::NODEV) => return Ok(()),
        Err(e) => return Err(e).context(Operation::Open, file),
    };
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
        wait_until(&mut [PollFd::new(&events, PollFlags::PRI)], Some(deadline))
            .context(Operation::Wait, &file)?;
    }
}

fn remove_bottom_up(cgroup: &HostPath) -> Result<()> {
    for below in children(cgroup)? {
        match remove_bottom_up(&below) {
            Ok(()) => (),
            Err(error) if error.cause == Errno::NOENT => (),
            Err(error) => return Err(error),
        }
    }
    rustix::fs::rmdir(cgroup.as_path()).context(Operation::Remove, cgroup)
}
