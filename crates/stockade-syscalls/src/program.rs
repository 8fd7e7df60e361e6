//! The actions of a process between `clone` and `exec`, as data.
//!
//! A child of a threaded process may only make system calls: at the moment of the clone another thread may have
//! held the allocator's lock or any other lock. The child therefore decides nothing and allocates nothing. The
//! parent builds a complete [`Program`], and the child runs it call by call.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::call::{Call, Decimal, State, cpu_time_us};
use crate::descriptors::{self, copy_above_standard};
use crate::spawn;

/// The call at which a program failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The index of the call, from 0.
    pub call: usize,
    /// The cause.
    pub errno: Errno,
}

impl Failure {
    /// Sends the failure through `channel` without allocating. A missing reader is no error.
    pub(crate) fn send(self, channel: BorrowedFd<'_>) {
        let mut message = [0; 8];
        message[..4].copy_from_slice(&(self.call as u32).to_ne_bytes());
        message[4..].copy_from_slice(&self.errno.raw_os_error().to_ne_bytes());
        let _ = rustix::io::write(channel, &message);
    }

    /// Waits for a failure; `None` once every process that held the other end has executed or exited.
    pub(crate) fn receive(channel: BorrowedFd<'_>) -> Result<Option<Self>, Errno> {
        let mut message = [0; 8];
        let length = loop {
            match rustix::io::read(channel, &mut message) {
                // ECONNRESET: the child failed before it read the release. The socket reports that once, and then
                // delivers the child's message.
                Err(Errno::INTR | Errno::CONNRESET) => (),
                read => break read?,
            }
        };
        if length < message.len() {
            return Ok(None);
        }
        let (call, errno) = message.split_at(4);
        let call = u32::from_ne_bytes(call.try_into().unwrap_or_default()) as usize;
        let errno = Errno::from_raw_os_error(i32::from_ne_bytes(errno.try_into().unwrap_or_default()));
        Ok(Some(Self { call, errno }))
    }
}

/// A list of calls, complete with everything they need.
#[derive(Debug)]
pub struct Program {
    calls: Vec<Call>,
    /// The inclusive ranges of file descriptors to close.
    gaps: Vec<(u32, u32)>,
    /// The processor time of the earlier processes, in microseconds.
    earlier_cpu_us: u64,
    position: Position,
}

/// The role of this process in the program.
#[derive(Debug)]
enum Position {
    /// The first process.
    Origin,
    /// A descendant of the first process, which sends failures through the channel.
    Descendant { channel: OwnedFd },
    /// The creator of the pid namespace, until it has written its child's pid.
    Parent { child: Pid, gate: OwnedFd, then: Then },
    /// The first process of a pid namespace, until its pid is written.
    Waiting { gate: OwnedFd, channel: OwnedFd },
}

/// The action of the pid namespace's creator after the release of its child.
#[derive(Debug)]
enum Then {
    /// The creator is the origin: wait at this end of the channel for the outcome.
    Wait(OwnedFd),
    /// The creator is a descendant with its own channel: exit.
    End(OwnedFd),
}

/// The reason why a program stopped.
enum Stop {
    /// The current call failed.
    Here(Errno),
    /// A descendant sent a failure.
    Below(Failure),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Here(errno)
    }
}

impl Program {
    /// Creates a program of `calls`, in this order.
    pub fn new(calls: Vec<Call>) -> Self {
        Self { calls, gaps: Vec::new(), earlier_cpu_us: 0, position: Position::Origin }
    }

    /// Runs the program in this process, which must have no other thread.
    ///
    /// Returns only on failure. On success the process executes another program. If the program continues in a
    /// child, the process exits with code 0 once the child has executed. A failure in a child is returned in the
    /// calling process.
    pub fn run(&mut self) -> Failure {
        self.compute_gaps(None);
        let failure = self.run_calls();
        self.report(failure);
        failure
    }

    /// Runs the program in a child that was cloned for it; never returns.
    pub(crate) fn run_in_child(&mut self, channel: OwnedFd) -> ! {
        self.position = Position::Descendant { channel };
        let failure = self.run_calls();
        self.report(failure);
        exit_now(1)
    }

    /// Sends a failure to the origin and exits, unless this process is the origin.
    fn report(&self, failure: Failure) {
        match &self.position {
            Position::Origin | Position::Parent { then: Then::Wait(_), .. } => (),
            Position::Descendant { channel }
            | Position::Waiting { channel, .. }
            | Position::Parent { then: Then::End(channel), .. } => {
                failure.send(channel.as_fd());
                exit_now(1)
            }
        }
    }

    /// Computes the ranges that [`Call::CloseOthers`] closes: all but the calls' file descriptors, `channel`, and
    /// 0 to 2.
    pub(crate) fn compute_gaps(&mut self, channel: Option<BorrowedFd<'_>>) {
        let mut kept: Vec<RawFd> = self.calls.iter().flat_map(Call::descriptors).collect();
        kept.extend(channel.map(|channel| channel.as_raw_fd()));
        kept.retain(|&fd| fd >= descriptors::FIRST);
        kept.sort_unstable();
        kept.dedup();
        let mut first = descriptors::FIRST.unsigned_abs();
        self.gaps.clear();
        for fd in kept {
            let fd = fd.unsigned_abs();
            if fd > first {
                self.gaps.push((first, fd - 1));
            }
            first = fd + 1;
        }
        self.gaps.push((first, u32::MAX));
    }

    /// Returns only on failure.
    fn run_calls(&mut self) -> Failure {
        let mut state = State::default();
        for index in 0..self.calls.len() {
            match self.call(index, &mut state) {
                Ok(()) => (),
                Err(Stop::Here(errno)) => return Failure { call: index, errno },
                Err(Stop::Below(failure)) => return failure,
            }
        }
        // The last call must execute or exit.
        Failure { call: self.calls.len(), errno: Errno::NOEXEC }
    }

    fn call(&mut self, index: usize, state: &mut State) -> Result<(), Stop> {
        match &mut self.calls[index] {
            Call::Daemonize => self.daemonize(),
            Call::ForkAgain => Ok(fork_again()?),
            Call::NewPidNamespace => Ok(self.new_pid_namespace()?),
            Call::WritePidFile(_) => self.write_pid_file(index),
            Call::WaitForRelease => Ok(self.wait_for_release()?),
            Call::CloseOthers => {
                Ok(self.gaps.iter().try_for_each(|&(first, last)| close_range(first, last))?)
            }
            Call::End => exit_now(0),
            copy @ Call::Copy { .. } => {
                // Closes the channel, as an exec does.
                self.position = Position::Origin;
                Ok(copy.perform(state)?)
            }
            Call::Execute(execute) => Err(execute.run(self.earlier_cpu_us).into()),
            Call::ExecuteWith(execute) => match &self.position {
                Position::Descendant { channel } => Err(execute.run(channel.as_fd()).into()),
                _ => Err(Errno::INVAL.into()),
            },
            simple => Ok(simple.perform(state)?),
        }
    }

    /// The first fork of a daemon: the caller's process waits for the outcome, the child continues.
    fn daemonize(&mut self) -> Result<(), Stop> {
        let (parent_end, child_end) = spawn::channel()?;
        self.earlier_cpu_us += cpu_time_us();
        if spawn::clone(0)?.is_some() {
            drop(child_end);
            return outcome(&parent_end);
        }
        drop(parent_end);
        self.position = Position::Descendant { channel: child_end };
        Ok(())
    }

    fn new_pid_namespace(&mut self) -> Result<(), Errno> {
        // The child of a session leader must leave the session: the leader's exit would send it SIGHUP.
        // rustix's getsid cannot return 0, which stands for a leader outside this pid namespace.
        // SAFETY: getsid reads no memory of this process.
        let session = unsafe { libc::getsid(0) };
        let leads = session == rustix::process::getpid().as_raw_nonzero().get();
        let (gate, keep) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (then, channel) = match &self.position {
            Position::Descendant { channel } => {
                (Then::End(copy_above_standard(channel)?), copy_above_standard(channel)?)
            }
            _ => spawn::channel().map(|(parent_end, child_end)| (Then::Wait(parent_end), child_end))?,
        };
        self.earlier_cpu_us += cpu_time_us();
        if let Some(child) = spawn::clone(libc::CLONE_NEWPID)? {
            self.position = Position::Parent { child, gate: keep, then };
            return Ok(());
        }
        drop((keep, then));
        self.position = Position::Waiting { gate, channel };
        if leads {
            rustix::process::setsid()?;
        }
        Ok(())
    }

    /// Writes the pid file. The first process of a pid namespace waits until its parent, which knows the pid
    /// outside, has written it.
    fn write_pid_file(&mut self, index: usize) -> Result<(), Stop> {
        let Call::WritePidFile(path) = &self.calls[index] else { return Err(Errno::INVAL.into()) };
        match &self.position {
            Position::Origin | Position::Descendant { .. } => Ok(write_pid(path, rustix::process::getpid())?),
            Position::Parent { child, gate, then } => {
                // On failure this process exits, which closes the gate, at which the child exits.
                write_pid(path, *child)?;
                rustix::io::write(gate, b"g")?;
                match then {
                    Then::Wait(channel) => outcome(channel),
                    Then::End(_) => exit_now(0),
                }
            }
            Position::Waiting { gate, .. } => {
                let mut release = [0];
                match rustix::io::retry_on_intr(|| rustix::io::read(gate, &mut release))? {
                    0 => exit_now(1),
                    _ => Ok(()),
                }
            }
        }
    }

    fn wait_for_release(&self) -> Result<(), Errno> {
        let Position::Descendant { channel } = &self.position else { return Ok(()) };
        let mut release = [0];
        match rustix::io::retry_on_intr(|| rustix::io::read(channel, &mut release))? {
            0 => exit_now(1),
            _ => Ok(()),
        }
    }
}

/// The second fork of a daemon.
fn fork_again() -> Result<(), Errno> {
    match spawn::clone(0)? {
        Some(_) => exit_now(0),
        None => Ok(()),
    }
}

/// Waits for the descendants: returns their failure, or exits if they succeeded.
fn outcome(channel: &OwnedFd) -> Result<(), Stop> {
    match Failure::receive(channel.as_fd())? {
        Some(failure) => Err(Stop::Below(failure)),
        None => exit_now(0),
    }
}

/// The mode that Firecracker's jailer gives the file under the usual umask. Under any umask only root can write it.
const PID_FILE: Mode = Mode::from_raw_mode(0o644);

fn write_pid(path: &CStr, pid: Pid) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, PID_FILE)?;
    let mut number = Decimal::default();
    let text = number.set(u64::from(pid.as_raw_nonzero().get().unsigned_abs()));
    rustix::io::write(file, text.to_bytes()).map(drop)
}

/// Closes every file descriptor from 3 up.
///
/// Must be called first: it would also close the process's own files.
///
/// # Errors
/// Returns ENOSYS before Linux 5.9.
pub fn close_inherited() -> Result<(), Errno> {
    close_range(3, u32::MAX)
}

pub(crate) fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: no later code uses the closed file descriptors. The callers are a child that will execute or exit,
    // and a program that owns its whole process; those of the program are outside the range.
    let refused = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if refused == 0 { Ok(()) } else { Err(last_errno()) }
}

pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Exits without running the exit handlers that were copied from the parent.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory of this process.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn all_descriptors_but_those_in_use_are_closed() {
        let null = rustix::fs::open(c"/dev/null", OFlags::RDONLY, Mode::empty()).expect("open /dev/null");
        let raw = null.as_raw_fd().unsigned_abs();
        let mut program = Program::new(vec![Call::CloseOthers, Call::ChangeDirectory(Arc::new(null))]);
        program.compute_gaps(None);
        let closed = |fd: u32| program.gaps.iter().any(|&(first, last)| first <= fd && fd <= last);
        assert!(!closed(0) && !closed(1) && !closed(2), "the standard streams stay open");
        assert!(!closed(raw), "the calls' file descriptors stay open");
        assert!((3..64).filter(|&fd| fd != raw).all(closed) && closed(u32::MAX));
    }
}
