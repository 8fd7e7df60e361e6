//! The terminal of a VMM under `run`: the operator's keys go to it while the command is in the foreground, and its
//! output is shown.

use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{InputModes, OptionalActions, OutputModes, SpecialCodeIndex, tcgetattr, tcsetattr};
use stockade::Streams;
use stockade::spec::reason;
use stockade_syscalls::descriptors::fd_path;
use stockade_syscalls::signals::{Arrived, SignalFd, is_ignored, let_through, unblock};

use super::carrier::Carrier;
use super::keyboard::{Keyboard, WantedModes};
use super::pair::{Pty, resize};
use super::stop_key::{STOP_KEY, StopKey};
use super::{no_terminal, streams, terminals};
use crate::terminal::output::{Failure, error, info};

/// Bytes of input that may wait until the VMM reads them.
const MAX_PENDING_INPUT: usize = 4096;

/// Time limit for full input while Ctrl-C is a signal: the command reads no further keys, and so would not see Ctrl-C.
const STALE_AFTER: Duration = Duration::from_secs(1);

/// Interval of the check whether a shell has put the command in the foreground. The kernel sends SIGCONT only to a
/// stopped process.
const FOREGROUND_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Time limit for showing the last output before the VMM's exit is reported.
const LAST_OUTPUT_TIMEOUT: Duration = Duration::from_millis(100);

/// The terminal of one VMM.
///
/// It is not a controlling terminal: the VMM's session has none. This command stops the VMM with a signal instead. If
/// this command is killed, the VMM runs on, whereas the hang-up of a controlling terminal would kill it.
pub(crate) struct Relay {
    /// The modes and signals that are changed while the VMM runs.
    front: Option<Front>,
    carrier: Option<Carrier>,
}

/// The part that only a running VMM needs. Drop restores the fields in this order.
struct Front {
    keyboard: Option<Keyboard>,
    jobs: JobSignals,
    master: OwnedFd,
    typed: Vec<u8>,
    backlog: Backlog,
    stop_key: StopKey,
    /// Whether the operator knows the stop key.
    explained: bool,
}

/// How far the VMM is behind with reading its input.
#[derive(Clone, Copy)]
enum Backlog {
    /// The buffer has room.
    Room,
    /// The buffer has been full since that time, and the VMM has read nothing.
    FullSince(Instant),
    /// The buffer was full for too long. Input that the VMM does not read at once is dropped.
    Stale,
}

impl Relay {
    /// Creates a pseudoterminal for a VMM, and the streams to launch it with. `None` if none of the command's streams
    /// is a terminal.
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
        let carrier = screen(terminals).and_then(|screen| Carrier::new(pty.master.as_fd(), screen.as_fd()));
        let carrier = Some(carrier.map_err(failed)?);
        let streams = pty.streams_for(terminals).map_err(failed)?;
        let (typed, backlog, stop_key) = (Vec::new(), Backlog::Room, StopKey::default());
        let front = Front { keyboard, jobs, master: pty.master, typed, backlog, stop_key, explained: false };
        Ok((Some(Self { front: Some(front), carrier }), streams))
    }

    /// The pid of the process that shows the output.
    pub(crate) fn carrier(&self) -> Option<i32> {
        self.carrier.as_ref().map(Carrier::pid)
    }

    /// The file descriptors to wait for besides the VMM.
    pub(crate) fn waits_for(&self) -> Vec<PollFd<'_>> {
        let Some(front) = &self.front else { return Vec::new() };
        let mut waiting = vec![PollFd::new(&front.jobs.0, PollFlags::IN)];
        waiting.extend(self.carrier.as_ref().map(|carrier| PollFd::new(carrier, PollFlags::IN)));
        waiting.extend(front.reads_from().map(|from| PollFd::from_borrowed_fd(from, PollFlags::IN)));
        waiting.extend((!front.typed.is_empty()).then(|| PollFd::new(&front.master, PollFlags::OUT)));
        waiting
    }

    /// The longest time to wait for these file descriptors; `None` for no limit.
    pub(crate) fn wait_limit(&self) -> Option<Duration> {
        let front = self.front.as_ref()?;
        let stale = match front.backlog {
            Backlog::FullSince(since) => Some(STALE_AFTER.saturating_sub(since.elapsed())),
            Backlog::Room | Backlog::Stale => None,
        };
        let in_background = front.keyboard.as_ref().is_some_and(|keyboard| !keyboard.is_taken());
        stale.into_iter().chain(in_background.then_some(FOREGROUND_CHECK_INTERVAL)).min()
    }

    /// Handles signals, input and output without waiting.
    pub(crate) fn step(&mut self) {
        let Some(front) = &mut self.front else { return };
        front.handle_job_signals();
        front.carry_typed();
        match self.carrier.as_mut().map_or(Ok(false), Carrier::is_running) {
            Ok(true) => (),
            // All processes of the jail have closed the terminal.
            Ok(false) => self.end(),
            Err(cause) => {
                error(&format!("stopped showing the VMM's output: {}", reason(&cause)));
                self.end();
            }
        }
    }

    /// Whether a signal was a key that the VMM wants as a byte. If so, the byte is passed on.
    pub(crate) fn is_key(&mut self, arrived: Arrived) -> bool {
        self.front.as_mut().is_some_and(|front| front.takes_key(arrived))
    }

    /// After the VMM's exit, shows its last output and restores the operator's terminal.
    ///
    /// Other processes of the jail may still write. They are waited for only after the jail is removed.
    pub(crate) fn close(&mut self) {
        if let Some(carrier) = &self.carrier {
            carrier.wait(LAST_OUTPUT_TIMEOUT);
        }
        self.front = None;
    }

    /// Stops the relay. The VMM's terminal hangs up, so that the VMM does not block on it.
    fn end(&mut self) {
        self.front = None;
        self.carrier = None;
    }
}

impl Front {
    /// The modes that the VMM wants; the defaults if its terminal's modes cannot be read.
    fn wanted(&self) -> WantedModes {
        let modes = tcgetattr(&self.master).ok();
        modes.map_or(WantedModes { signals: true, lines: true }, |modes| WantedModes::of(&modes))
    }

    /// The terminal to read keys from; `None` in the background or if the buffer is full.
    fn reads_from(&self) -> Option<BorrowedFd<'static>> {
        let keyboard = self.keyboard.as_ref().filter(|keyboard| keyboard.is_taken())?;
        (self.typed.len() < MAX_PENDING_INPUT).then(|| keyboard.terminal())
    }

    /// Stops the command on Ctrl-Z, and sets the terminal again when it continues.
    fn handle_job_signals(&mut self) {
        while let Ok(Some(arrived)) = self.jobs.0.take_arrived() {
            match arrived.signal {
                Signal::TSTP if !self.takes_key(arrived) => self.stop(),
                Signal::CONT | Signal::WINCH => resize(self.master.as_fd()),
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
        // Returns at once in an orphaned process group, which the kernel does not stop.
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

    /// Reads keys in the foreground, and writes as many to the VMM as it accepts.
    fn carry_typed(&mut self) {
        let wanted = self.wanted();
        // Before the terminal's modes change: then a line would not begin at the left.
        if !wanted.signals && !self.explained && self.keyboard.as_ref().is_some_and(Keyboard::is_taken) {
            self.explained = true;
            if std::io::stderr().is_terminal() {
                info(&format!("every key goes to the VMM now, Ctrl-C too; {STOP_KEY}"));
            }
        }
        let Some(keyboard) = &mut self.keyboard else { return };
        let is_connected = (!keyboard.take(wanted) || self.read(wanted)) && self.write();
        if !is_connected {
            // The operator's or the VMM's terminal is closed.
            self.keyboard = None;
            self.typed.clear();
        }
        self.drop_stale();
    }

    /// Returns false at the end of input.
    fn read(&mut self, wanted: WantedModes) -> bool {
        let Some(from) = self.reads_from() else { return true };
        if !super::is_readable(from) {
            return true;
        }
        let mut buffer = [0; MAX_PENDING_INPUT];
        match rustix::io::read(from, &mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                self.take_bytes(&buffer[..length], wanted);
                true
            }
            Err(Errno::INTR | Errno::AGAIN) => true,
            // EIO: the command is in the background now, and SIGTTIN is blocked.
            Err(Errno::IO) => self.keyboard.as_mut().is_some_and(|keyboard| !keyboard.take(wanted)),
            Err(_) => false,
        }
    }

    /// Buffers bytes, or sends the signals of their keys.
    ///
    /// The bytes may have been read before the VMM switched back to keys that are signals.
    fn take_bytes(&mut self, bytes: &[u8], wanted: WantedModes) {
        let Some(keyboard) = &self.keyboard else { return };
        for byte in bytes {
            if !wanted.signals && self.stop_key.is_complete(*byte, Instant::now()) {
                // As from outside: SIGINT may be ignored.
                let _ = kill_process(getpid(), Signal::TERM);
            }
            match keyboard.signal_of(*byte).filter(|_| wanted.signals) {
                Some(signal) => {
                    let _ = kill_process(getpid(), signal);
                }
                None => self.typed.push(*byte),
            }
        }
    }

    /// Returns false if the VMM's side is closed.
    fn write(&mut self) -> bool {
        while !self.typed.is_empty() {
            match rustix::io::write(&self.master, &self.typed) {
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

    /// Drops input that the VMM does not read, because Ctrl-C or the stop key may come after it.
    fn drop_stale(&mut self) {
        self.backlog = match self.backlog {
            _ if self.typed.is_empty() => Backlog::Room,
            Backlog::FullSince(since) if since.elapsed() >= STALE_AFTER => Backlog::Stale,
            Backlog::Room if self.typed.len() >= MAX_PENDING_INPUT => Backlog::FullSince(Instant::now()),
            unchanged => unchanged,
        };
        if matches!(self.backlog, Backlog::Stale) {
            self.typed.clear();
        }
    }
}

/// The signals of job control, blocked until drop.
///
/// So the command stops only after the terminal is restored, and never because it accessed the terminal from the
/// background.
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

/// Sets up the VMM's terminal: non-blocking for the command, with the operator's special keys.
fn prepare(pty: &Pty) -> std::io::Result<()> {
    rustix::io::ioctl_fionbio(&pty.master, true)?;
    let mut modes = tcgetattr(&pty.slave)?;
    // Without `ONLCR`: the operator's terminal adds the carriage return, and must not add it twice.
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
    Ok(tcsetattr(&pty.slave, OptionalActions::Now, &modes)?)
}

/// The terminal that shows the VMM's output.
///
/// It is one of the command's streams, opened again so that it is writable and non-blocking. If that fails, it is the
/// stream itself.
pub(super) fn screen(terminals: [bool; 3]) -> std::io::Result<OwnedFd> {
    let [stdin, stdout, stderr] = streams();
    let [is_in, is_out, is_err] = terminals;
    let found = [(stdout, is_out), (stderr, is_err), (stdin, is_in)]
        .into_iter()
        .find(|(_, is_terminal)| *is_terminal);
    let (stream, _) = found.ok_or(Errno::NOTTY)?;
    let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(fd_path(&stream), flags, Mode::empty()).map_or_else(|_| stream.try_clone_to_owned(), Ok)
}
