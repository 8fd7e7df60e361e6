//! The modes of the operator's terminal while its keys go to a program.

use std::os::fd::BorrowedFd;

use rustix::process::{Signal, getpgrp};
use rustix::termios::{
    LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr,
};

/// Whether the command is in the foreground of this terminal, and so may read and set it.
///
/// In the background the terminal is the shell's. A terminal that does not control the command's session has no
/// background.
fn is_foreground(terminal: BorrowedFd<'_>) -> bool {
    tcgetpgrp(terminal).map_or(true, |foreground| foreground == getpgrp())
}

/// The raw mode of stdin's terminal. Drop restores the previous modes.
pub(super) struct RawStdin(BorrowedFd<'static>, Termios);

impl RawStdin {
    /// Sets the raw mode, so that each key is passed on. `None` if stdin is not a terminal.
    pub(super) fn raw() -> Option<Self> {
        let stdin = rustix::stdio::stdin();
        let stdin_modes = Self(stdin, tcgetattr(stdin).ok()?);
        let mut raw = stdin_modes.1.clone();
        raw.make_raw();
        tcsetattr(stdin_modes.0, OptionalActions::Now, &raw).ok()?;
        Some(stdin_modes)
    }
}

impl Drop for RawStdin {
    fn drop(&mut self) {
        if is_foreground(self.0) {
            // It fails if the terminal was closed, which needs no action.
            let _ = tcsetattr(self.0, OptionalActions::Now, &self.1);
        }
    }
}

/// The modes of a VMM's terminal that are applied to the operator's terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct WantedModes {
    /// Ctrl-C, Ctrl-Z and Ctrl-\ are signals instead of bytes (`ISIG`).
    pub(super) signals: bool,
    /// A newline is written as a carriage return and a newline (`OPOST`).
    pub(super) lines: bool,
}

impl WantedModes {
    /// Reads the modes of a VMM's terminal.
    pub(super) fn of(modes: &Termios) -> Self {
        Self {
            signals: modes.local_modes.contains(LocalModes::ISIG),
            lines: modes.output_modes.contains(OutputModes::OPOST),
        }
    }
}

/// The keyboard of the operator's terminal on stdin. Its modes change only while the command is in the foreground.
pub(super) struct Keyboard {
    terminal: BorrowedFd<'static>,
    /// The operator's modes, while others are set.
    found: Option<Termios>,
    set: Option<WantedModes>,
}

impl Keyboard {
    pub(super) fn new() -> Self {
        Self { terminal: rustix::stdio::stdin(), found: None, set: None }
    }

    /// Sets the modes that the VMM wants. Returns false in the background, where nothing is set.
    ///
    /// The check and the change are a race, but only SIGSTOP between them can set the modes of a shell's terminal:
    /// SIGTTOU is blocked, and Ctrl-Z stops the command only after the modes are restored.
    pub(super) fn take(&mut self, wanted: WantedModes) -> bool {
        if !is_foreground(self.terminal) {
            self.set = None;
            return false;
        }
        if self.set != Some(wanted) {
            let found = self.found.take().or_else(|| tcgetattr(self.terminal).ok());
            if let Some(found) = found {
                // It fails if the terminal was closed. The next read reports that.
                let _ = tcsetattr(self.terminal, OptionalActions::Now, &modes(&found, wanted));
                self.found = Some(found);
            }
            self.set = Some(wanted);
        }
        true
    }

    /// Restores the operator's modes if the command is in the foreground.
    pub(super) fn release(&mut self) {
        if let Some(found) = self.found.take()
            && is_foreground(self.terminal)
        {
            let _ = tcsetattr(self.terminal, OptionalActions::Now, &found);
        }
        self.set = None;
    }

    /// Makes the next [`Self::take`] set the modes again: a shell may have changed them while the command was stopped.
    pub(super) fn release_claim(&mut self) {
        self.set = None;
    }

    pub(super) fn is_taken(&self) -> bool {
        self.set.is_some()
    }

    pub(super) fn terminal(&self) -> BorrowedFd<'static> {
        self.terminal
    }

    /// The byte of the key that sends this signal.
    pub(super) fn key_of(&self, signal: Signal) -> Option<u8> {
        KEYS.iter().find(|(_, sent)| *sent == signal).and_then(|(key, _)| self.code(*key))
    }

    /// The signal that the key with this byte sends.
    pub(super) fn signal_of(&self, byte: u8) -> Option<Signal> {
        KEYS.iter().find(|(key, _)| self.code(*key) == Some(byte)).map(|(_, signal)| *signal)
    }

    fn code(&self, key: SpecialCodeIndex) -> Option<u8> {
        // 0 disables a key (`_POSIX_VDISABLE`).
        self.found.as_ref().map(|found| found.special_codes[key]).filter(|code| *code != 0)
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        self.release();
    }
}

const KEYS: [(SpecialCodeIndex, Signal); 3] = [
    (SpecialCodeIndex::VINTR, Signal::INT),
    (SpecialCodeIndex::VQUIT, Signal::QUIT),
    (SpecialCodeIndex::VSUSP, Signal::TSTP),
];

/// The modes of the operator's terminal.
///
/// Input is raw and without echo, because the VMM's terminal edits lines and echoes. Output is processed by the
/// operator's terminal, so that the command's own messages have correct line ends too.
fn modes(found: &Termios, wanted: WantedModes) -> Termios {
    let mut modes = found.clone();
    modes.make_raw();
    modes.control_modes = found.control_modes;
    modes.output_modes = found.output_modes;
    modes
        .output_modes
        .set(OutputModes::OPOST, wanted.lines && found.output_modes.contains(OutputModes::OPOST));
    modes.local_modes.set(LocalModes::ISIG, wanted.signals);
    modes
}
