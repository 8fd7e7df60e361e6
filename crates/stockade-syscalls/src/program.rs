//! What a process does to itself between `clone` and `exec`, as data.
//!
//! A child of a threaded process may only make system calls: another thread may have held the allocator's
//! lock, or any other, at the moment of the clone. So nothing is decided and nothing allocated there. A
//! [`Program`] is made in full beforehand, and the child carries it out call by call.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::call::{Call, Decimal, State, cpu_time_us};
use crate::descriptors::copy_above_standard;
use crate::spawn;

/// Where a program stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The number of the call, from 0.
    pub call: usize,
    /// What the kernel said.
    pub errno: Errno,
}

impl Failure {
    /// Reports it through `link`, without allocating. If nobody reads there any more, nobody is told.
    pub(crate) fn send(self, link: BorrowedFd<'_>) {
        let mut message = [0; 8];
        message[..4].copy_from_slice(&(self.call as u32).to_ne_bytes());
        message[4..].copy_from_slice(&self.errno.raw_os_error().to_ne_bytes());
        let _ = rustix::io::write(link, &message);
    }

    /// Waits at the other end of the link: a failure, or `None` once every process that held this end has
    /// executed something else or ended.
    pub(crate) fn receive(link: BorrowedFd<'_>) -> Result<Option<Self>, Errno> {
        let mut message = [0; 8];
        let length = loop {
            match rustix::io::read(link, &mut message) {
                // A child that failed without having read the word to go on: the socket tells that first,
                // once, and then what the child had to say.
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
    /// The descriptors to close, as ranges with both ends in them.
    gaps: Vec<(u32, u32)>,
    /// What the processes before this one used, in microseconds of processor time.
    earlier_cpu_us: u64,
    position: Position,
}

/// Which process of the program this is.
#[derive(Debug)]
enum Position {
    /// The one that began.
    Origin,
    /// One that it made; failures go through the link.
    Descendant { link: OwnedFd },
    /// The one that made the pid namespace, until it has written its child's pid.
    Parent { child: Pid, gate: OwnedFd, then: Then },
    /// The first process of a pid namespace, until its pid is written.
    Held { gate: OwnedFd, link: OwnedFd },
}

/// What the maker of a pid namespace does once its child may go on.
#[derive(Debug)]
enum Then {
    /// It is the origin: wait at this end of the link for the outcome.
    Wait(OwnedFd),
    /// It is a descendant itself, with its own link: end.
    End(OwnedFd),
}

/// Why a program stopped.
enum Stop {
    /// The call at hand failed.
    Here(Errno),
    /// A descendant reported a failure.
    Below(Failure),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Here(errno)
    }
}

impl Program {
    /// A program of `calls`, in this order.
    pub fn new(calls: Vec<Call>) -> Self {
        Self { calls, gaps: Vec::new(), earlier_cpu_us: 0, position: Position::Origin }
    }

    /// Carries the program out in this process, which must have no other thread.
    ///
    /// If all goes well this never returns: the process has become another program, or, where the program
    /// goes on in a child, it ends with exit code 0 once the child has executed. What fails in a child is
    /// reported to and returned in the process that called.
    pub fn run(&mut self) -> Failure {
        self.seal(None);
        let failure = self.carry_out();
        self.report(failure);
        failure
    }

    /// The same in a child that was cloned for it; never returns.
    pub(crate) fn run_in_child(&mut self, link: OwnedFd) -> ! {
        self.position = Position::Descendant { link };
        let failure = self.carry_out();
        self.report(failure);
        exit_now(1)
    }

    /// Reports a failure to the origin and ends, unless this is the origin.
    fn report(&self, failure: Failure) {
        match &self.position {
            Position::Origin | Position::Parent { then: Then::Wait(_), .. } => (),
            Position::Descendant { link }
            | Position::Held { link, .. }
            | Position::Parent { then: Then::End(link), .. } => {
                failure.send(link.as_fd());
                exit_now(1)
            }
        }
    }

    /// Works out what [`Call::CloseOthers`] closes: all but what the calls hold, `link`, and 0 to 2.
    pub(crate) fn seal(&mut self, link: Option<BorrowedFd<'_>>) {
        let mut kept: Vec<RawFd> = self.calls.iter().flat_map(Call::descriptors).collect();
        kept.extend(link.map(|l| l.as_raw_fd()));
        kept.retain(|&fd| fd > 2);
        kept.sort_unstable();
        kept.dedup();
        let mut first = 3;
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

    /// Returns only at the call that failed.
    fn carry_out(&mut self) -> Failure {
        let mut state = State::default();
        for index in 0..self.calls.len() {
            match self.call(index, &mut state) {
                Ok(()) => (),
                Err(Stop::Here(errno)) => return Failure { call: index, errno },
                Err(Stop::Below(failure)) => return failure,
            }
        }
        // A program that executes nothing has nothing to go on with.
        Failure { call: self.calls.len(), errno: Errno::NOEXEC }
    }

    fn call(&mut self, index: usize, state: &mut State) -> Result<(), Stop> {
        match &mut self.calls[index] {
            Call::Daemonize => self.daemonize(),
            Call::ForkAgain => Ok(fork_again()?),
            Call::NewPidNamespace => Ok(self.new_pid_namespace()?),
            Call::WritePidFile(_) => self.write_pid_file(index),
            Call::WaitForRelease => Ok(self.wait_for_go()?),
            Call::CloseOthers => {
                Ok(self.gaps.iter().try_for_each(|&(first, last)| close_range(first, last))?)
            }
            Call::End => exit_now(0),
            copy @ Call::Copy { .. } => {
                // Closes the link, as executing something does.
                self.position = Position::Origin;
                Ok(copy.make(state)?)
            }
            Call::Execute(execute) => Err(execute.run(self.earlier_cpu_us).into()),
            Call::ExecuteWith(execute) => match &self.position {
                Position::Descendant { link } => Err(execute.run(link.as_fd()).into()),
                _ => Err(Errno::INVAL.into()),
            },
            simple => Ok(simple.make(state)?),
        }
    }

    /// The first fork of a daemon: the caller's process waits for the outcome, the child goes on.
    fn daemonize(&mut self) -> Result<(), Stop> {
        let (ours, theirs) = spawn::link()?;
        self.earlier_cpu_us += cpu_time_us();
        if spawn::clone(0)?.is_some() {
            drop(theirs);
            return outcome(&ours);
        }
        drop(ours);
        self.position = Position::Descendant { link: theirs };
        Ok(())
    }

    fn new_pid_namespace(&mut self) -> Result<(), Errno> {
        // A child of a session's leader must leave that session: the leader's end would send it SIGHUP.
        // SAFETY: getsid reads no memory of this process. (rustix's cannot return the 0 that stands for a
        // leader outside this pid namespace.)
        let session = unsafe { libc::getsid(0) };
        let leads = session == rustix::process::getpid().as_raw_nonzero().get();
        let (gate, keep) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (then, link) = match &self.position {
            Position::Descendant { link } => {
                (Then::End(copy_above_standard(link)?), copy_above_standard(link)?)
            }
            _ => spawn::link().map(|(ours, theirs)| (Then::Wait(ours), theirs))?,
        };
        self.earlier_cpu_us += cpu_time_us();
        if let Some(child) = spawn::clone(libc::CLONE_NEWPID)? {
            self.position = Position::Parent { child, gate: keep, then };
            return Ok(());
        }
        drop((keep, then));
        self.position = Position::Held { gate, link };
        if leads {
            rustix::process::setsid()?;
        }
        Ok(())
    }

    /// Whoever knows the pid writes it; the first process of a pid namespace waits until that is done.
    fn write_pid_file(&mut self, index: usize) -> Result<(), Stop> {
        let Call::WritePidFile(path) = &self.calls[index] else { return Err(Errno::INVAL.into()) };
        match &self.position {
            Position::Origin | Position::Descendant { .. } => Ok(write_pid(path, rustix::process::getpid())?),
            Position::Parent { child, gate, then } => {
                // On failure this process ends, which closes the gate, which ends the child.
                write_pid(path, *child)?;
                rustix::io::write(gate, b"g")?;
                match then {
                    Then::Wait(link) => outcome(link),
                    Then::End(_) => exit_now(0),
                }
            }
            Position::Held { gate, .. } => {
                let mut go = [0];
                match rustix::io::retry_on_intr(|| rustix::io::read(gate, &mut go))? {
                    0 => exit_now(1),
                    _ => Ok(()),
                }
            }
        }
    }

    fn wait_for_go(&self) -> Result<(), Errno> {
        let Position::Descendant { link } = &self.position else { return Ok(()) };
        let mut go = [0];
        match rustix::io::retry_on_intr(|| rustix::io::read(link, &mut go))? {
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

/// Waits for the descendants: their failure is ours; their success ends this process.
fn outcome(link: &OwnedFd) -> Result<(), Stop> {
    match Failure::receive(link.as_fd())? {
        Some(failure) => Err(Stop::Below(failure)),
        None => exit_now(0),
    }
}

/// As the original makes it under the usual umask: nobody but root may write to it, whatever the umask is.
const PID_FILE: Mode = Mode::from_raw_mode(0o644);

fn write_pid(path: &CStr, pid: Pid) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, PID_FILE)?;
    let mut number = Decimal::default();
    let text = number.set(u64::from(pid.as_raw_nonzero().get().unsigned_abs()));
    rustix::io::write(file, text.to_bytes()).map(drop)
}

/// Closes every descriptor from 3 up that this process got from its caller.
///
/// To be called first of all: whatever the process opened itself would be closed too.
///
/// # Errors
/// ENOSYS before Linux 5.9.
pub fn close_inherited() -> Result<(), Errno> {
    close_range(3, u32::MAX)
}

pub(crate) fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: in a child that will execute or end, and in a program that owns its whole process, no code
    // runs later that would use the closed descriptors: those of the program are outside the range.
    let refused = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if refused == 0 { Ok(()) } else { Err(last_errno()) }
}

pub(crate) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Ends this process without running anything that the process it was copied from has registered.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns and touches no memory of this process.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn all_descriptors_but_the_needed_are_closed() {
        let null = rustix::fs::open(c"/dev/null", OFlags::RDONLY, Mode::empty()).expect("open /dev/null");
        let raw = null.as_raw_fd().unsigned_abs();
        let mut program = Program::new(vec![Call::CloseOthers, Call::ChangeDirectory(Arc::new(null))]);
        program.seal(None);
        let closed = |fd: u32| program.gaps.iter().any(|&(first, last)| first <= fd && fd <= last);
        assert!(!closed(0) && !closed(1) && !closed(2), "the standard descriptors stay open");
        assert!(!closed(raw), "what a call needs stays open");
        assert!((3..64).filter(|&fd| fd != raw).all(closed) && closed(u32::MAX));
    }
}
