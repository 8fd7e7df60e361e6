//! A VMM's terminal: what is typed at the operator's goes to it while that is ours, and what the VMM writes is shown.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{
    InputModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use stockade::Streams;
use stockade_syscalls::signals::{Arrived, SignalFd, is_ignored, let_through, unblock};

use super::carrier::Carrier;
use super::keyboard::{Keyboard, WantedModes};
use super::pair::{Pty, resize};
use super::{no_terminal, streams, terminals};
use crate::terminal::output::{Failure, error};

/// How much that was typed may wait for the VMM to read it.
const MOST_TYPED: usize = 4096;

/// How long that much may wait where Ctrl-C is a signal: a terminal that is full of keys sees no further ones.
const STALE_AFTER: Duration = Duration::from_secs(1);

/// How soon it is seen that a shell has put us in the foreground. The kernel sends a signal only where we were stopped.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// How long the last output may take to be shown before the VMM's end is reported.
const LAST_OUTPUT_TIMEOUT: Duration = Duration::from_millis(100);

/// The terminal of one VMM.
///
/// It does not control the VMM's session, which has none, as ever: the VMM is asked to end by this command, by a
/// signal of its own, and runs on where this command is killed. A terminal that hangs up would kill it.
pub(crate) struct Relay {
    /// All that is set and blocked while the VMM runs.
    front: Option<Front>,
    carrier: Option<Carrier>,
}

/// The part that only a VMM that runs needs; its fields are given back in this order.
struct Front {
    keyboard: Option<Keyboard>,
    jobs: JobSignals,
    ours: OwnedFd,
    typed: Vec<u8>,
    backlog: Backlog,
}

/// How far the VMM is behind with reading.
#[derive(Clone, Copy)]
enum Backlog {
    /// There is room for more.
    Room,
    /// There has been none since that time, and nothing was read.
    FullSince(Instant),
    /// There has been none for too long. The VMM gets what it takes at once; the rest is dropped.
    Stale,
}

impl Relay {
    /// A terminal for a VMM in the place of each of our streams that is one, and the streams to launch it with; `None`
    /// if there is no terminal among ours.
    pub(crate) fn new() -> Result<(Option<Self>, Streams), Failure> {
        let terminals = terminals();
        if !terminals.contains(&true) {
            return Ok((None, Streams::default()));
        }
        let failed = |e| no_terminal(&e);
        let jobs = JobSignals::block().map_err(failed)?;
        let pty = Pty::new().map_err(failed)?;
        prepare(&pty).map_err(failed)?;
        let keyboard = terminals[0].then(Keyboard::new);
        let carrier = screen(terminals).and_then(|screen| Carrier::new(pty.ours.as_fd(), screen.as_fd()));
        let carrier = Some(carrier.map_err(failed)?);
        let streams = pty.in_place_of(terminals).map_err(failed)?;
        let front = Front { keyboard, jobs, ours: pty.ours, typed: Vec::new(), backlog: Backlog::Room };
        Ok((Some(Self { front: Some(front), carrier }), streams))
    }

    /// The descriptors to wait for besides the VMM.
    pub(crate) fn waits_for(&self) -> Vec<PollFd<'_>> {
        let Some(front) = &self.front else { return Vec::new() };
        let mut waiting = vec![PollFd::new(&front.jobs.0, PollFlags::IN)];
        waiting.extend(self.carrier.as_ref().map(|carrier| PollFd::new(carrier, PollFlags::IN)));
        waiting.extend(front.reads_from().map(|from| PollFd::from_borrowed_fd(from, PollFlags::IN)));
        waiting.extend((!front.typed.is_empty()).then(|| PollFd::new(&front.ours, PollFlags::OUT)));
        waiting
    }

    /// How long that may be waited for.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let front = self.front.as_ref()?;
        let stale = match front.backlog {
            Backlog::FullSince(since) => Some(STALE_AFTER.saturating_sub(since.elapsed())),
            Backlog::Room | Backlog::Stale => None,
        };
        let waits = front.keyboard.as_ref().is_some_and(|keyboard| !keyboard.is_taken());
        stale.into_iter().chain(waits.then_some(LOOK_AGAIN_AFTER)).min()
    }

    /// Does what there is to do now, without waiting.
    pub(crate) fn step(&mut self) {
        let Some(front) = &mut self.front else { return };
        front.handle_job_signals();
        front.carry_typed();
        match self.carrier.as_mut().map_or(Ok(false), Carrier::is_running) {
            Ok(true) => (),
            // The VMM has closed its terminal.
            Ok(false) => self.end(),
            Err(cause) => {
                error(&format!("the VMM's output is not shown any more: {cause}"));
                self.end();
            }
        }
    }

    /// Whether a signal was a key that is the VMM's.
    pub(crate) fn is_key(&mut self, arrived: Arrived) -> bool {
        self.front.as_mut().is_some_and(|front| front.takes_key(arrived))
    }

    /// The VMM has ended: shows what it has written last, and has the operator's terminal be as it was. What still
    /// writes is not waited for before the jail is gone.
    pub(crate) fn close(&mut self) {
        if let Some(carrier) = &self.carrier {
            carrier.wait(LAST_OUTPUT_TIMEOUT);
        }
        self.front = None;
    }

    /// Nothing is carried any more. The VMM's terminal is hung up, so that it does not wait.
    fn end(&mut self) {
        self.front = None;
        self.carrier = None;
    }
}

impl Front {
    fn theirs(&self) -> Option<Termios> {
        tcgetattr(&self.ours).ok()
    }

    /// One whose terminal cannot be asked wishes for nothing special.
    fn wanted(&self) -> WantedModes {
        self.theirs().map_or(WantedModes { signals: true, lines: true }, |theirs| WantedModes::of(&theirs))
    }

    /// Where keys are to be read from now.
    fn reads_from(&self) -> Option<BorrowedFd<'static>> {
        let keyboard = self.keyboard.as_ref().filter(|keyboard| keyboard.is_taken())?;
        (self.typed.len() < MOST_TYPED).then(|| keyboard.terminal())
    }

    /// Stops where the operator asks for it, and sets everything anew after that.
    fn handle_job_signals(&mut self) {
        while let Ok(Some(arrived)) = self.jobs.0.take_arrived() {
            match arrived.signal {
                Signal::TSTP if !self.takes_key(arrived) => self.stop(),
                Signal::CONT | Signal::WINCH => resize(self.ours.as_fd()),
                _ => (),
            }
            if arrived.signal == Signal::CONT
                && let Some(keyboard) = &mut self.keyboard
            {
                keyboard.release_claim();
            }
        }
    }

    fn stop(&mut self) {
        if let Some(keyboard) = &mut self.keyboard {
            keyboard.release();
        }
        // Where that is not heeded, in a group that no shell looks after, it goes on at once.
        let _ = let_through(Signal::TSTP);
    }

    fn takes_key(&mut self, arrived: Arrived) -> bool {
        let key = self.keyboard.as_ref().and_then(|keyboard| keyboard.key_of(arrived.signal));
        match key.filter(|_| arrived.by_kernel && !self.wanted().signals) {
            Some(key) => {
                self.typed.push(key);
                true
            }
            None => false,
        }
    }

    /// Takes what was typed, if the keyboard is ours, and gives it to the VMM as far as that takes it.
    fn carry_typed(&mut self) {
        let wanted = self.wanted();
        let Some(keyboard) = &mut self.keyboard else { return };
        let is_connected = (!keyboard.take(wanted) || self.read(wanted)) && self.write();
        if !is_connected {
            // The operator's terminal is gone, or the VMM's is.
            self.keyboard = None;
            self.typed.clear();
        }
        self.drop_stale(wanted);
    }

    /// False at the end of what can be typed.
    fn read(&mut self, wanted: WantedModes) -> bool {
        let Some(from) = self.reads_from() else { return true };
        if !super::is_readable(from) {
            return true;
        }
        let mut buffer = [0; MOST_TYPED];
        match rustix::io::read(from, &mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                self.take_bytes(&buffer[..length], wanted);
                true
            }
            Err(Errno::INTR | Errno::AGAIN) => true,
            // In the background by now: SIGTTIN is blocked.
            Err(Errno::IO) => self.keyboard.as_mut().is_some_and(|keyboard| !keyboard.take(wanted)),
            Err(_) => false,
        }
    }

    /// A VMM that has gone back to keys that signal may have been handed such a one as a byte.
    fn take_bytes(&mut self, bytes: &[u8], wanted: WantedModes) {
        let Some(keyboard) = &self.keyboard else { return };
        for byte in bytes {
            match keyboard.signal_of(*byte).filter(|_| wanted.signals) {
                Some(signal) => {
                    let _ = kill_process(getpid(), signal);
                }
                None => self.typed.push(*byte),
            }
        }
    }

    /// False if the VMM's side is closed.
    fn write(&mut self) -> bool {
        while !self.typed.is_empty() {
            match rustix::io::write(&self.ours, &self.typed) {
                Ok(written) => {
                    self.typed.drain(..written);
                    if matches!(self.backlog, Backlog::FullSince(_)) {
                        self.backlog = Backlog::Room;
                    }
                }
                Err(Errno::INTR) => (),
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    /// Drops what the VMM does not read, where a key that signals may be behind it.
    fn drop_stale(&mut self, wanted: WantedModes) {
        self.backlog = match self.backlog {
            _ if self.typed.is_empty() || !wanted.signals => Backlog::Room,
            Backlog::FullSince(since) if since.elapsed() >= STALE_AFTER => Backlog::Stale,
            Backlog::Room if self.typed.len() >= MOST_TYPED => Backlog::FullSince(Instant::now()),
            unchanged => unchanged,
        };
        if matches!(self.backlog, Backlog::Stale) {
            self.typed.clear();
        }
    }
}

/// The signals by which a terminal and a shell move jobs about, blocked for as long as this lives: we are stopped
/// only when the terminal is as it was, and never for having asked it something from the background.
struct JobSignals(SignalFd);

impl JobSignals {
    fn block() -> std::io::Result<Self> {
        SignalFd::block(&Self::handled()).map(Self)
    }

    fn handled() -> Vec<Signal> {
        let all = [Signal::TSTP, Signal::CONT, Signal::WINCH, Signal::TTIN, Signal::TTOU];
        all.into_iter().filter(|signal| !is_ignored(*signal)).collect()
    }
}

impl Drop for JobSignals {
    fn drop(&mut self) {
        let _ = unblock(&Self::handled());
    }
}

/// Has the VMM's terminal understand the operator's keys, and never keep us waiting. A line's end is made one for a
/// screen by the operator's, and not twice.
fn prepare(pty: &Pty) -> std::io::Result<()> {
    rustix::io::ioctl_fionbio(&pty.ours, true)?;
    let mut modes = tcgetattr(&pty.theirs)?;
    modes.output_modes = OutputModes::OPOST;
    if let Some(operators) = streams().into_iter().find_map(|stream| tcgetattr(stream).ok()) {
        modes.input_modes.set(InputModes::IUTF8, operators.input_modes.contains(InputModes::IUTF8));
        for code in [SpecialCodeIndex::VERASE, SpecialCodeIndex::VWERASE, SpecialCodeIndex::VKILL] {
            modes.special_codes[code] = operators.special_codes[code];
        }
        for code in [SpecialCodeIndex::VINTR, SpecialCodeIndex::VQUIT, SpecialCodeIndex::VSUSP] {
            modes.special_codes[code] = operators.special_codes[code];
        }
    }
    Ok(tcsetattr(&pty.theirs, OptionalActions::Now, &modes)?)
}

/// Where the VMM's output is shown: one of our streams that is a terminal, opened anew, so that it can be written to
/// and never keeps its writer waiting; as it is where that cannot be done.
fn screen(terminals: [bool; 3]) -> std::io::Result<OwnedFd> {
    let [stdin, stdout, stderr] = streams();
    let [is_in, is_out, is_err] = terminals;
    let found =
        [(stdout, 1, is_out), (stderr, 2, is_err), (stdin, 0, is_in)].into_iter().find(|found| found.2);
    let (stream, number, _) = found.ok_or(Errno::NOTTY)?;
    let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(format!("/proc/self/fd/{number}"), flags, Mode::empty())
        .map_or_else(|_| stream.try_clone_to_owned(), Ok)
}
