//! The operator's terminal while its keys go to a program: how it was, and how it is set meanwhile.

use std::os::fd::BorrowedFd;

use rustix::process::{Signal, getpgrp};
use rustix::termios::{
    LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr,
};

/// Whether a terminal is ours to read from and to set. In the background it is the shell's. One that does not control
/// our session knows no background.
fn is_ours(terminal: BorrowedFd<'_>) -> bool {
    tcgetpgrp(terminal).map_or(true, |foreground| foreground == getpgrp())
}

/// Our terminal as it was, which it is again when this goes, whatever was done with it meanwhile.
pub(super) struct RawStdin(BorrowedFd<'static>, Termios);

impl RawStdin {
    /// Has the terminal that stdin is, if it is one, hand on every key.
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
        if is_ours(self.0) {
            // A terminal that is gone needs no care.
            let _ = tcsetattr(self.0, OptionalActions::Now, &self.1);
        }
    }
}

/// The modes of its terminal that a VMM has a say in at the operator's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct WantedModes {
    /// Ctrl-C, Ctrl-Z and Ctrl-\ are signals, and no bytes.
    pub(super) signals: bool,
    /// A line's end is made one for a screen.
    pub(super) lines: bool,
}

impl WantedModes {
    /// What a VMM wants that has set its terminal so.
    pub(super) fn of(theirs: &Termios) -> Self {
        Self {
            signals: theirs.local_modes.contains(LocalModes::ISIG),
            lines: theirs.output_modes.contains(OutputModes::OPOST),
        }
    }
}

/// The keyboard of the operator's terminal, which stdin is. It is set only while it is ours.
pub(super) struct Keyboard {
    terminal: BorrowedFd<'static>,
    /// How the operator has set it, while it is set otherwise.
    found: Option<Termios>,
    set: Option<WantedModes>,
}

impl Keyboard {
    pub(super) fn new() -> Self {
        Self { terminal: rustix::stdio::stdin(), found: None, set: None }
    }

    /// Sets the terminal as the VMM wishes, if it is ours now; true if it is.
    ///
    /// Only a SIGSTOP between the question and the act could have a shell's terminal set: we are not stopped by SIGTTOU
    /// then, nor by a key before it is as it was.
    pub(super) fn take(&mut self, wanted: WantedModes) -> bool {
        if !is_ours(self.terminal) {
            self.set = None;
            return false;
        }
        if self.set != Some(wanted) {
            let found = self.found.take().or_else(|| tcgetattr(self.terminal).ok());
            if let Some(found) = found {
                // One that is gone cannot be set; its end is seen when it is read.
                let _ = tcsetattr(self.terminal, OptionalActions::Now, &modes(&found, wanted));
                self.found = Some(found);
            }
            self.set = Some(wanted);
        }
        true
    }

    /// Sets it as it was, if it is ours.
    pub(super) fn release(&mut self) {
        if let Some(found) = self.found.take()
            && is_ours(self.terminal)
        {
            let _ = tcsetattr(self.terminal, OptionalActions::Now, &found);
        }
        self.set = None;
    }

    /// Has it set anew when it is next ours: a shell may have set it while we were stopped.
    pub(super) fn release_claim(&mut self) {
        self.set = None;
    }

    /// Whether keys come from it.
    pub(super) fn is_taken(&self) -> bool {
        self.set.is_some()
    }

    pub(super) fn terminal(&self) -> BorrowedFd<'static> {
        self.terminal
    }

    /// The byte of the key that is this signal.
    pub(super) fn key_of(&self, signal: Signal) -> Option<u8> {
        KEYS.iter().find(|(_, its)| *its == signal).and_then(|(key, _)| self.code(*key))
    }

    /// The signal that the key of this byte is.
    pub(super) fn signal_of(&self, byte: u8) -> Option<Signal> {
        KEYS.iter().find(|(key, _)| self.code(*key) == Some(byte)).map(|(_, signal)| *signal)
    }

    fn code(&self, key: SpecialCodeIndex) -> Option<u8> {
        // 0 is none.
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

/// Keys are handed on one by one and unseen: the VMM's terminal edits lines and echoes. What comes out is for a screen
/// by the operator's terminal, so that what we ourselves have to say is too.
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
