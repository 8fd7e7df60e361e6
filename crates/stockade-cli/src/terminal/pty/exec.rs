//! The terminal of an exec process. The command itself relays input and output.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use stockade::spec::reason;
use stockade::{Exec, ExecProcess, ExitStatus};
use stockade_syscalls::poll::{is_ready, wait_until};
use stockade_syscalls::signals::SignalFd;

use super::keyboard::RawStdin;
use super::pair::{Pty, resize};
use super::{no_terminal, streams, terminals};
use crate::terminal::output::Failure;
use crate::terminal::signals::stop_signals_and;

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

/// Waits for an exec process that has the command's streams, and forwards signals to it.
fn wait_for(Entered { process, signals }: &Entered) -> Result<ExitStatus, Failure> {
    let mut signalled = false;
    loop {
        if let Some(status) = process.wait_timeout(Duration::ZERO)? {
            return Ok(status);
        }
        wait(&mut [PollFd::new(process, PollFlags::IN), PollFd::new(signals, PollFlags::IN)])?;
        while let Ok(Some(signal)) = signals.take() {
            // The second signal kills: the first process of a pid namespace ignores signals without a handler.
            process.signal(if signalled { Signal::KILL } else { signal })?;
            signalled = true;
        }
    }
}

/// Waits for an exec process that has a pseudoterminal, and relays input and output.
fn relay(exec: Exec, terminals: [bool; 3], enter: Enter<'_>) -> Result<ExitStatus, Failure> {
    let (master, exec) = attach_pty(exec, terminals).map_err(|e| no_terminal(&e))?;
    let Entered { process, signals } = enter_with(&[Signal::WINCH], exec, enter)?;
    let _raw = RawStdin::raw();
    let [stdin, stdout, _] = streams();
    let (mut has_input, mut has_output) = (terminals[0], true);
    loop {
        if let Some(status) = process.wait_timeout(Duration::ZERO)? {
            while carry(master.as_fd(), stdout)? == Carried::Some {}
            return Ok(status);
        }
        let mut waiting = vec![PollFd::new(&process, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        waiting.extend(has_input.then(|| PollFd::from_borrowed_fd(stdin, PollFlags::IN)));
        waiting.extend(has_output.then(|| PollFd::new(&master, PollFlags::IN)));
        wait(&mut waiting)?;
        has_input = has_input && carry(stdin, master.as_fd())? != Carried::End;
        has_output = has_output && carry(master.as_fd(), stdout)? != Carried::End;
        while let Ok(Some(signal)) = signals.take() {
            match signal {
                Signal::WINCH => resize(master.as_fd()),
                other => process.signal(other)?,
            }
        }
    }
}

/// Replaces each of the command's streams that is a terminal. Returns the command's side of the pseudoterminal.
fn attach_pty(exec: Exec, terminals: [bool; 3]) -> io::Result<(OwnedFd, Exec)> {
    let pty = Pty::new()?;
    let exec = exec.streams(pty.streams_for(terminals)?).terminal(pty.slave);
    Ok(match std::env::var_os("TERM") {
        Some(kind) => (pty.master, exec.variable("TERM", kind)),
        None => (pty.master, exec),
    })
}

#[derive(PartialEq, Eq)]
enum Carried {
    Some,
    Nothing,
    /// The other side is closed.
    End,
}

/// Copies the data that is available now.
fn carry(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<Carried, Failure> {
    let mut ready = [PollFd::from_borrowed_fd(from, PollFlags::IN)];
    match is_ready(&mut ready) {
        Ok(true) => (),
        Ok(false) => return Ok(Carried::Nothing),
        Err(e) => return Err(Failure::new(format!("cannot wait for the program: {}", reason(&e)))),
    }
    let mut buffer = [0; 4096];
    let mut rest = match rustix::io::read(from, &mut buffer) {
        Ok(0) | Err(Errno::IO) => return Ok(Carried::End),
        Ok(length) => &buffer[..length],
        Err(Errno::INTR | Errno::AGAIN) => return Ok(Carried::Nothing),
        Err(e) => return Err(Failure::new(format!("cannot read from the terminal: {}", reason(&e)))),
    };
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => (),
            Err(Errno::IO) => return Ok(Carried::End),
            Err(e) => return Err(io::Error::from(e).into()),
        }
    }
    Ok(Carried::Some)
}

fn wait(waiting: &mut [PollFd<'_>]) -> Result<(), Failure> {
    let waited = wait_until(waiting, None);
    waited.map(drop).map_err(|e| Failure::new(format!("cannot wait for the program: {}", reason(&e))))
}
