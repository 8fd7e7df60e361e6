//! Starting programs with the minimum: `clone3` and `execve`.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions};
use rustix::time::{ClockId, clock_gettime};
use stockade_syscalls::call::{Argument, Call, Execute};
use stockade_syscalls::program::Program;
use stockade_syscalls::spawn::{Child, CloneOptions, Released, spawn};

use crate::{Done, text};

/// Nanoseconds of the monotonic clock, which the bench's VMM prints too.
pub(crate) fn now() -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    #[expect(clippy::cast_precision_loss, reason = "a clock of less than a century")]
    let nanoseconds = (now.tv_sec * 1_000_000_000 + now.tv_nsec) as f64;
    nanoseconds
}

/// Creates the pipe for the time of the VMM's first instruction.
pub(crate) fn pipe() -> Done<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).map_err(text)
}

/// Reads the time of the VMM's first instruction from the pipe.
///
/// # Arguments
/// `whole`: whether to read to the end, for a pipe that closes with the VMM.
pub(crate) fn began(pipe: OwnedFd, whole: bool) -> Done<f64> {
    let mut printed = String::new();
    let mut pipe = File::from(pipe);
    if whole {
        pipe.read_to_string(&mut printed).map_err(text)?;
    } else {
        let mut line = [0; 64];
        let length = pipe.read(&mut line).map_err(text)?;
        printed.push_str(&String::from_utf8_lossy(&line[..length]));
    }
    // A peer may have printed other lines before.
    let last = printed.lines().rev().find_map(|line| line.parse().ok());
    last.ok_or_else(|| format!("the VMM did not run: {printed:?}"))
}

/// Creates the call that executes a program.
pub(crate) fn execute(program: &Path, arguments: &[&str]) -> Call {
    let program = CString::new(program.as_os_str().as_bytes()).unwrap_or_default();
    let mut all = vec![Argument::Text(program.clone())];
    all.extend(arguments.iter().map(|argument| Argument::Text(CString::new(*argument).unwrap_or_default())));
    Call::Execute(Execute::new(program, all))
}

/// Clones a child that performs these calls, the last of which is an exec.
pub(crate) fn start(calls: Vec<Call>) -> Done<OwnedFd> {
    start_in(calls, None)
}

/// Clones the child in a cgroup v2 (`CLONE_INTO_CGROUP`).
pub(crate) fn start_in(calls: Vec<Call>, cgroup: Option<BorrowedFd<'_>>) -> Done<OwnedFd> {
    let mut program = Program::new(calls);
    let child = spawn(&mut program, CloneOptions { cgroup, ..CloneOptions::default() }).map_err(text)?;
    release(child)
}

/// Releases a child and waits for its exec.
pub(crate) fn release(child: Child) -> Done<OwnedFd> {
    match child.release_and_wait(&mut |waited| waited >= TIMEOUT) {
        (pidfd, Ok(Released::Executed)) => Ok(pidfd),
        (_, Ok(Released::Failed(failure))) => {
            Err(format!("call {} of the floor: {}", failure.call, failure.errno))
        }
        (_, Ok(Released::GivenUp)) => Err("the floor's child does not get to its exec".to_owned()),
        (_, Err(cause)) => Err(text(cause)),
    }
}

/// The time that a child has to get to its exec.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Waits for a child's exit and reaps it.
pub(crate) fn reap(pidfd: &OwnedFd) -> Done {
    rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).map(drop).map_err(text)
}
