//! Unusual states of the process that starts a command, for tests.

use std::ffi::c_int;
use std::io;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus};
use rustix::thread::CapabilitySet;

use crate::inherited::{SchedulingAttributes, set_scheduling};

/// Closes a file descriptor that nothing in this process uses any more, such as a standard stream.
pub fn close(descriptor: c_int) {
    // SAFETY: the caller gives up the file descriptor; an unused number is an error that has no effect.
    unsafe { libc::close(descriptor) };
}

/// Blocks every signal that can be blocked.
pub fn block_all_signals() {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is valid for writing a sigset_t.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: initialised just above; the pointer to the old mask is null.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) };
}

/// Ignores every signal that can be ignored.
pub fn ignore_all_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_IGN installs no handler; SIGKILL and SIGSTOP are refused without effect.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Gives this process the scheduling policy `SCHED_FIFO` with priority 5.
///
/// # Errors
/// Returns the errors of `sched_setattr`.
pub fn schedule_in_real_time() -> io::Result<()> {
    let attributes = SchedulingAttributes {
        size: size_of::<SchedulingAttributes>() as u32,
        policy: libc::SCHED_FIFO as u32,
        priority: 5,
        ..SchedulingAttributes::default()
    };
    Ok(set_scheduling(&attributes)?)
}

/// Makes every permitted capability inheritable and ambient.
///
/// # Errors
/// Returns the errors of `capset` and `prctl`.
pub fn make_capabilities_ambient() -> io::Result<()> {
    let sets = rustix::thread::capabilities(None)?;
    let all = sets.permitted;
    rustix::thread::set_capabilities(None, rustix::thread::CapabilitySets { inheritable: all, ..sets })?;
    for one in each(all) {
        rustix::thread::configure_capability_in_ambient_set(one, true)?;
    }
    Ok(())
}

/// Removes a capability from every set of this process, for ever.
///
/// # Errors
/// Returns the errors of `prctl` and `capset`.
pub fn give_up(capability: CapabilitySet) -> io::Result<()> {
    rustix::thread::remove_capability_from_bounding_set(capability)?;
    let sets = rustix::thread::capabilities(None)?;
    rustix::thread::set_capabilities(
        None,
        rustix::thread::CapabilitySets {
            effective: sets.effective.difference(capability),
            permitted: sets.permitted.difference(capability),
            inheritable: sets.inheritable.difference(capability),
        },
    )?;
    Ok(())
}

fn each(set: CapabilitySet) -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS).map(|at| CapabilitySet::from_bits_retain(1 << at)).filter(move |one| set.contains(*one))
}

/// Continues in a child of this process. The parent is stopped then. After SIGCONT it waits for the child, and exits
/// with its code. Returns in the child alone, once the parent is stopped.
///
/// # Errors
/// Returns the errors of `fork`.
pub fn stop_parent() -> io::Result<()> {
    // SAFETY: this process has one thread, so its child can do what it could.
    let child = unsafe { libc::fork() };
    match child {
        0 => {
            wait_until_stopped();
            Ok(())
        }
        1.. => {
            let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::STOP);
            let code = Pid::from_raw(child).map_or(1, code_of);
            // SAFETY: the process ends here, so no code runs afterwards.
            unsafe { libc::_exit(code) }
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Moves this process to a user namespace of its own, in which every user and group has its number of outside.
///
/// # Errors
/// Returns the errors of `fork` and `unshare`, and an error if the namespace cannot get its users.
pub fn enter_user_namespace() -> io::Result<()> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user"));
    let outside = namespace("self")?;
    let parent = rustix::process::getpid().as_raw_pid().to_string();
    // SAFETY: this process has one thread, so its child can do what it could.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // Only a process outside may give the namespace more than one user.
        while namespace(&parent).is_ok_and(|now| now == outside) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let write = |map: &str| std::fs::write(format!("/proc/{parent}/{map}"), format!("0 0 {}", u32::MAX));
        let code = i32::from(["uid_map", "gid_map"].into_iter().any(|map| write(map).is_err()));
        // SAFETY: the process ends here, so no code runs afterwards.
        unsafe { libc::_exit(code) }
    }
    let child = Pid::from_raw(child).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: only CLONE_FILES makes unshare unsafe.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWUSER) }?;
    if code_of(child) == 0 { Ok(()) } else { Err(io::Error::other("its users cannot be set")) }
}

/// Waits until the parent of this process is stopped.
fn wait_until_stopped() {
    let stat = format!("/proc/{}/stat", rustix::process::getppid().map_or(0, Pid::as_raw_pid));
    let is_stopped = || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "));
    while !is_stopped() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn code_of(child: Pid) -> c_int {
    let status =
        rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::Pid(child), WaitIdOptions::EXITED));
    let code = |status: WaitIdStatus| {
        status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal))
    };
    status.ok().flatten().and_then(code).unwrap_or(1)
}
