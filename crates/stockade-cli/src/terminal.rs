//! Our terminal, kept as it was; and one of a visitor's own. Ours is never given away: whoever is in the jail could read what is typed, and
//! type what our shell would read afterwards.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, getpgrp};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{
    OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr, tcsetwinsize,
};
use stockade::{Ended, Streams, Visit, Visitor};
use stockade_syscalls::signals::SignalFd;

use crate::output::Failure;
use crate::signals::stop_signals_and;

/// What brings a visitor into the jail.
type Enter<'a> = &'a dyn Fn(Visit) -> Result<Visitor, Failure>;

/// Runs a visit to its end. Each of our streams that is a terminal is replaced by one of the visitor's own.
pub(crate) fn attend(visit: Visit, enter: Enter<'_>) -> Result<Ended, Failure> {
    let terminals = streams().map(isatty);
    if terminals.contains(&true) {
        meet(visit, terminals, enter)
    } else {
        wait_for(&enter_with(&[], visit, enter)?)
    }
}

fn streams() -> [BorrowedFd<'static>; 3] {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
}

/// A visitor, and the signals that are not delivered any more.
struct Attended {
    visitor: Visitor,
    signals: SignalFd,
}

fn enter_with(more: &[Signal], visit: Visit, enter: Enter<'_>) -> Result<Attended, Failure> {
    // First the signals: one that comes while the visitor enters is not lost.
    let signals = stop_signals_and(more)?;
    Ok(Attended { visitor: enter(visit)?, signals })
}

/// Waits for a visitor that has our streams; what asks us to end asks it.
fn wait_for(Attended { visitor, signals }: &Attended) -> Result<Ended, Failure> {
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
fn meet(visit: Visit, terminals: [bool; 3], enter: Enter<'_>) -> Result<Ended, Failure> {
    let (ours, visit) = give(visit, terminals).map_err(|e| no_terminal(&e))?;
    resize(ours.as_fd());
    let Attended { visitor, signals } = enter_with(&[Signal::WINCH], visit, enter)?;
    let _raw = Kept::raw();
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
fn give(visit: Visit, terminals: [bool; 3]) -> io::Result<(OwnedFd, Visit)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags)?;
    unlockpt(&ours)?;
    let theirs = ioctl_tiocgptpeer(&ours, flags)?;
    let copy = |wanted: bool| wanted.then(|| theirs.try_clone()).transpose();
    let streams =
        Streams { stdin: copy(terminals[0])?, stdout: copy(terminals[1])?, stderr: copy(terminals[2])? };
    let visit = visit.streams(streams).terminal(theirs);
    Ok(match std::env::var_os("TERM") {
        Some(kind) => (ours, visit.variable("TERM", kind)),
        None => (ours, visit),
    })
}

/// Makes the visitor's terminal as large as ours.
fn resize(theirs: BorrowedFd<'_>) {
    let size = streams().into_iter().find_map(|stream| tcgetwinsize(stream).ok());
    // One of another size is a terminal all the same.
    let _ = size.map(|size| tcsetwinsize(theirs, size));
}

/// Our terminal as it was, which it is again when this goes, whatever was done with it meanwhile.
pub(crate) struct Kept(BorrowedFd<'static>, Termios);

impl Kept {
    /// The terminal that stdin is, if it is one.
    pub(crate) fn new() -> Option<Self> {
        let stdin = rustix::stdio::stdin();
        Some(Self(stdin, tcgetattr(stdin).ok()?))
    }

    /// Has it hand on every key.
    fn raw() -> Option<Self> {
        let kept = Self::new()?;
        let mut raw = kept.1.clone();
        raw.make_raw();
        tcsetattr(kept.0, OptionalActions::Now, &raw).ok()?;
        Some(kept)
    }

    /// Whether it is ours to set: a background job of it that tries is stopped.
    fn is_ours(&self) -> bool {
        tcgetpgrp(self.0).map_or(true, |foreground| foreground == getpgrp())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.is_ours() {
            // A terminal that is gone needs no care.
            let _ = tcsetattr(self.0, OptionalActions::Now, &self.1);
        }
    }
}

fn no_terminal(error: &io::Error) -> Failure {
    Failure::new(format!("failed to make a terminal for the jail: {error}"))
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
    match poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(0) | Err(Errno::INTR) => return Ok(Carried::Nothing),
        Ok(_) => (),
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
    match poll(waiting, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(Failure::new(format!("failed to wait for the program: {e}"))),
    }
}
