//! The terminal of an exec process. The command itself relays input and output.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use stockade::spec::reason;
use stockade::{Exec, ExecProcess, ExitStatus};
use stockade_syscalls::poll::{is_ready, wait_until};
use stockade_syscalls::signals::SignalFd;

use super::keyboard::RawStdin;
use super::pair::{Pty, resize};
use super::relay::screen;
use super::{no_terminal, streams, terminals};
use crate::terminal::output::Failure;
use crate::terminal::signals::stop_signals_and;

/// The most bytes that are read at once.
const CHUNK: usize = 4096;

/// More bytes than the kernel buffers for a terminal.
const MOST_IN_TERMINAL: usize = 128 * 1024;

/// Time limit for the operator's terminal to accept the rest of the output.
const SLOW_READER_TIMEOUT: Duration = Duration::from_secs(4);

/// Starts an exec process in the jail.
type Enter<'a> = &'a dyn Fn(Exec) -> Result<ExecProcess, Failure>;

/// Runs an exec process until it exits. A pseudoterminal replaces each of the command's streams that is a terminal.
pub(crate) fn run_exec(exec: Exec, enter: Enter<'_>) -> Result<ExitStatus, Failure> {
    let terminals = terminals();
    if terminals.contains(&true) {
        relay(exec, terminals, enter)
    } else {
        wait_for(&enter_with(&[], exec, enter)?)
    }
}

/// An exec process, and the blocked signals.
struct Entered {
    process: ExecProcess,
    signals: SignalFd,
}

fn enter_with(more: &[Signal], exec: Exec, enter: Enter<'_>) -> Result<Entered, Failure> {
    // Blocked first, so that a signal that arrives during the start is not lost.
    let signals = stop_signals_and(more)?;
    Ok(Entered { process: enter(exec)?, signals })
}

impl Entered {
    /// Passes arrived signals on. The second one kills: the first process of a pid namespace ignores signals without a
    /// handler. Returns the status then.
    fn forward_signals(
        &self,
        signalled: &mut bool,
        resized: &dyn Fn(),
    ) -> Result<Option<ExitStatus>, Failure> {
        while let Ok(Some(signal)) = self.signals.take() {
            match signal {
                Signal::WINCH => resized(),
                _ if *signalled => return Ok(Some(self.process.kill()?)),
                other => {
                    self.process.signal(other)?;
                    *signalled = true;
                }
            }
        }
        Ok(None)
    }
}

/// Waits for an exec process that has the command's streams, and forwards signals to it.
fn wait_for(entered: &Entered) -> Result<ExitStatus, Failure> {
    let Entered { process, signals } = entered;
    let mut signalled = false;
    loop {
        if let Some(status) = process.wait_timeout(Duration::ZERO)? {
            return Ok(status);
        }
        wait(&mut [PollFd::new(process, PollFlags::IN), PollFd::new(signals, PollFlags::IN)], None)?;
        if let Some(killed) = entered.forward_signals(&mut signalled, &|| ())? {
            return Ok(killed);
        }
    }
}

/// Waits for an exec process that has a pseudoterminal, and relays input and output.
///
/// Nothing here blocks, neither at a program that does not read nor at a terminal that is not read: a process that has
/// exited has to be waited for, because it keeps the jail's pid namespace.
fn relay(exec: Exec, terminals: [bool; 3], enter: Enter<'_>) -> Result<ExitStatus, Failure> {
    let (master, exec) = attach_pty(exec, terminals).map_err(|e| no_terminal(&e))?;
    let screen = screen(terminals).map_err(|e| no_terminal(&e))?;
    let entered = enter_with(&[Signal::WINCH], exec, enter)?;
    let Entered { process, signals } = &entered;
    let _raw = RawStdin::raw();
    let [stdin, _, _] = streams();
    let mut input = Flow::new(stdin, master.as_fd(), terminals[0]);
    let mut output = Flow::new(master.as_fd(), screen.as_fd(), true);
    let mut signalled = false;
    loop {
        if let Some(status) = process.wait_timeout(Duration::ZERO)? {
            output.finish()?;
            return Ok(status);
        }
        let mut waiting = vec![PollFd::new(process, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        waiting.extend(input.waits_for());
        waiting.extend(output.waits_for());
        wait(&mut waiting, None)?;
        input.step()?;
        output.step()?;
        if let Some(killed) = entered.forward_signals(&mut signalled, &|| resize(master.as_fd()))? {
            return Ok(killed);
        }
    }
}

/// Replaces each of the command's streams that is a terminal. Returns the command's side of the pseudoterminal.
fn attach_pty(exec: Exec, terminals: [bool; 3]) -> io::Result<(OwnedFd, Exec)> {
    let pty = Pty::new()?;
    rustix::io::ioctl_fionbio(&pty.master, true)?;
    let exec = exec.streams(pty.streams_for(terminals)?).terminal(pty.slave);
    Ok(match std::env::var_os("TERM") {
        Some(kind) => (pty.master, exec.variable("TERM", kind)),
        None => (pty.master, exec),
    })
}

/// Bytes that flow from one file descriptor to another, which may be slow.
struct Flow<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    /// Bytes that were read and not written yet.
    pending: Vec<u8>,
    is_open: bool,
}

impl<'a> Flow<'a> {
    fn new(from: BorrowedFd<'a>, to: BorrowedFd<'a>, is_open: bool) -> Self {
        Self { from, to, pending: Vec::new(), is_open }
    }

    fn waits_for(&self) -> Option<PollFd<'a>> {
        match (self.is_open, self.pending.is_empty()) {
            (false, _) => None,
            (true, true) => Some(PollFd::from_borrowed_fd(self.from, PollFlags::IN)),
            (true, false) => Some(PollFd::from_borrowed_fd(self.to, PollFlags::OUT)),
        }
    }

    /// Copies what can be copied without waiting; false if nothing was read.
    fn step(&mut self) -> Result<bool, Failure> {
        if !self.is_open || !self.write()? {
            return Ok(false);
        }
        let read = self.read()?;
        self.write()?;
        Ok(read)
    }

    /// Copies the rest of the output of a program that has exited. Its descendants may hold the terminal and write on,
    /// and the operator's terminal may not be read.
    fn finish(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + SLOW_READER_TIMEOUT;
        let mut left = MOST_IN_TERMINAL;
        while self.is_open && left > 0 {
            if self.step()? {
                left = left.saturating_sub(CHUNK);
            } else if self.pending.is_empty() || !self.wait_to_write(deadline)? {
                break;
            }
        }
        while !self.pending.is_empty() && self.is_open && self.wait_to_write(deadline)? {
            self.write()?;
        }
        Ok(())
    }

    fn wait_to_write(&self, deadline: Instant) -> Result<bool, Failure> {
        wait(&mut [PollFd::from_borrowed_fd(self.to, PollFlags::OUT)], Some(deadline))
    }

    /// Reads once, if anything is there.
    fn read(&mut self) -> Result<bool, Failure> {
        let mut ready = [PollFd::from_borrowed_fd(self.from, PollFlags::IN)];
        match is_ready(&mut ready) {
            Ok(true) => (),
            Ok(false) => return Ok(false),
            Err(e) => return Err(Failure::new(format!("cannot wait for the program: {}", reason(&e)))),
        }
        let mut buffer = [0; CHUNK];
        match rustix::io::read(self.from, &mut buffer) {
            // EIO: every process has closed its side.
            Ok(0) | Err(Errno::IO) => self.is_open = false,
            Ok(length) => self.pending.extend(&buffer[..length]),
            Err(Errno::INTR | Errno::AGAIN) => return Ok(false),
            Err(e) => return Err(Failure::new(format!("cannot read from the terminal: {}", reason(&e)))),
        }
        Ok(self.is_open)
    }

    /// Writes pending bytes; false if some stay.
    fn write(&mut self) -> Result<bool, Failure> {
        while !self.pending.is_empty() {
            match rustix::io::write(self.to, &self.pending) {
                Ok(written) => drop(self.pending.drain(..written)),
                Err(Errno::INTR) => (),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::IO) => {
                    self.is_open = false;
                    return Ok(false);
                }
                Err(e) => return Err(io::Error::from(e).into()),
            }
        }
        Ok(true)
    }
}

fn wait(waiting: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<bool, Failure> {
    wait_until(waiting, deadline)
        .map_err(|e| Failure::new(format!("cannot wait for the program: {}", reason(&e))))
}
