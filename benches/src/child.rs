//! Programs started with as little as the kernel asks for: `clone3` and `execve`.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions};
use rustix::time::{ClockId, clock_gettime};
use stockade_syscalls::call::{Argument, Call, Execute};
use stockade_syscalls::program::Program;
use stockade_syscalls::spawn::{CloneOptions, spawn};

use crate::{Done, text};

/// Nanoseconds of the monotonic clock, as the bench's VMM tells them.
pub(crate) fn now() -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    #[expect(clippy::cast_precision_loss, reason = "a clock of less than a century")]
    let nanoseconds = (now.tv_sec * 1_000_000_000 + now.tv_nsec) as f64;
    nanoseconds
}

/// A pipe for a VMM to tell its first instruction's time through.
pub(crate) fn pipe() -> Done<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).map_err(text)
}

/// When the VMM at the other end of the pipe began. The pipe must have no other writer.
pub(crate) fn began(pipe: OwnedFd, whole: bool) -> Done<f64> {
    let mut told = String::new();
    let mut pipe = File::from(pipe);
    if whole {
        pipe.read_to_string(&mut told).map_err(text)?;
    } else {
        let mut line = [0; 64];
        let length = pipe.read(&mut line).map_err(text)?;
        told.push_str(&String::from_utf8_lossy(&line[..length]));
    }
    // A peer may have written something of its own before.
    let last = told.lines().rev().find_map(|line| line.parse().ok());
    last.ok_or_else(|| format!("the VMM did not run: {told:?}"))
}

/// The call that executes a program.
pub(crate) fn execute(program: &Path, arguments: &[&str]) -> Call {
    let program = CString::new(program.as_os_str().as_bytes()).unwrap_or_default();
    let mut all = vec![Argument::Text(program.clone())];
    all.extend(arguments.iter().map(|word| Argument::Text(CString::new(*word).unwrap_or_default())));
    Call::Execute(Execute::new(program, all))
}

/// Clones a child that makes these calls, the last of which executes something.
pub(crate) fn start(calls: Vec<Call>) -> Done<OwnedFd> {
    start_in(calls, None)
}

/// The same, born in a cgroup of version 2.
pub(crate) fn start_in(calls: Vec<Call>, cgroup: Option<BorrowedFd<'_>>) -> Done<OwnedFd> {
    let mut program = Program::new(calls);
    let child = spawn(&mut program, CloneOptions { cgroup, ..CloneOptions::default() }).map_err(text)?;
    match child.release_and_wait() {
        (pidfd, Ok(None)) => Ok(pidfd),
        (_, Ok(Some(failure))) => Err(format!("call {} of a floor: {}", failure.call, failure.errno)),
        (_, Err(cause)) => Err(text(cause)),
    }
}

/// Waits for a child's end and takes its status.
pub(crate) fn reap(pidfd: &OwnedFd) -> Done {
    rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).map(drop).map_err(text)
}
