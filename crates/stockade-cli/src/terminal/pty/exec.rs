//! A visitor's terminal, which the command itself carries to and fro.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use stockade::{Exec, ExecProcess, ExitStatus};
use stockade_syscalls::signals::SignalFd;

use super::keyboard::RawStdin;
use super::pair::{Pty, resize};
use super::{no_terminal, streams, terminals};
use crate::terminal::output::Failure;
use crate::terminal::poll::{is_ready, wait_until};
use crate::terminal::signals::stop_signals_and;

/// What brings a visitor into the jail.
type Enter<'a> = &'a dyn Fn(Exec) -> Result<ExecProcess, Failure>;

/// Runs a visit to its end. Each of our streams that is a terminal is replaced by one of the visitor's own.
pub(crate) fn run_exec(visit: Exec, enter: Enter<'_>) -> Result<ExitStatus, Failure> {
    let terminals = terminals();
    if terminals.contains(&true) {
        relay(visit, terminals, enter)
    } else {
        wait_for(&enter_with(&[], visit, enter)?)
    }
}

/// A visitor, and the signals that are not delivered any more.
struct Entered {
    visitor: ExecProcess,
    signals: SignalFd,
}

fn enter_with(more: &[Signal], visit: Exec, enter: Enter<'_>) -> Result<Entered, Failure> {
    // First the signals: one that comes while the visitor enters is not lost.
    let signals = stop_signals_and(more)?;
    Ok(Entered { visitor: enter(visit)?, signals })
}

/// Waits for a visitor that has our streams; what asks us to end asks it.
fn wait_for(Entered { visitor, signals }: &Entered) -> Result<ExitStatus, Failure> {
    let mut asked = false;
    loop {
        if let Some(ended) = visitor.wait_timeout(Duration::ZERO)? {
            return Ok(ended);
        }
        wait(&mut [PollFd::new(visitor, PollFlags::IN), PollFd::new(signals, PollFlags::IN)])?;
        while let Ok(Some(signal)) = signals.take() {
            // The first process of a pid namespace need not heed the first.
            visitor.signal(if asked { Signal::KILL } else { signal })?;
            asked = true;
        }
    }
}

/// Waits for a visitor that has a terminal of its own, and carries over what either side writes.
fn relay(visit: Exec, terminals: [bool; 3], enter: Enter<'_>) -> Result<ExitStatus, Failure> {
    let (ours, visit) = attach_pty(visit, terminals).map_err(|e| no_terminal(&e))?;
    let Entered { visitor, signals } = enter_with(&[Signal::WINCH], visit, enter)?;
    let _raw = RawStdin::raw();
    let [stdin, stdout, _] = streams();
    let (mut typing, mut listening) = (terminals[0], true);
    loop {
        if let Some(ended) = visitor.wait_timeout(Duration::ZERO)? {
            while carry(ours.as_fd(), stdout)? == Carried::Some {}
            return Ok(ended);
        }
        let mut waiting = vec![PollFd::new(&visitor, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        waiting.extend(typing.then(|| PollFd::from_borrowed_fd(stdin, PollFlags::IN)));
        waiting.extend(listening.then(|| PollFd::new(&ours, PollFlags::IN)));
        wait(&mut waiting)?;
        typing = typing && carry(stdin, ours.as_fd())? != Carried::End;
        listening = listening && carry(ours.as_fd(), stdout)? != Carried::End;
        while let Ok(Some(signal)) = signals.take() {
            match signal {
                Signal::WINCH => resize(ours.as_fd()),
                other => visitor.signal(other)?,
            }
        }
    }
}

/// Gives a visit a terminal in the place of each of our streams that is one; ours is the other side.
fn attach_pty(visit: Exec, terminals: [bool; 3]) -> io::Result<(OwnedFd, Exec)> {
    let pty = Pty::new()?;
    let visit = visit.streams(pty.in_place_of(terminals)?).terminal(pty.theirs);
    Ok(match std::env::var_os("TERM") {
        Some(kind) => (pty.ours, visit.variable("TERM", kind)),
        None => (pty.ours, visit),
    })
}

#[derive(PartialEq, Eq)]
enum Carried {
    Some,
    Nothing,
    /// Nobody has the other side any more.
    End,
}

/// Carries over what can be read now, without waiting for more.
fn carry(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<Carried, Failure> {
    let mut ready = [PollFd::from_borrowed_fd(from, PollFlags::IN)];
    match is_ready(&mut ready) {
        Ok(true) => (),
        Ok(false) => return Ok(Carried::Nothing),
        Err(e) => return Err(Failure::new(format!("failed to wait for the program: {e}"))),
    }
    let mut buffer = [0; 4096];
    let mut rest = match rustix::io::read(from, &mut buffer) {
        Ok(0) | Err(Errno::IO) => return Ok(Carried::End),
        Ok(length) => &buffer[..length],
        Err(Errno::INTR | Errno::AGAIN) => return Ok(Carried::Nothing),
        Err(e) => return Err(Failure::new(format!("failed to read from the terminal: {e}"))),
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
    waited.map(drop).map_err(|e| Failure::new(format!("failed to wait for the program: {e}")))
}
