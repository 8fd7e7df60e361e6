//! The operator's terminal while its keys go to a program: how it was, and how it is set meanwhile.

use std::os::fd::BorrowedFd;

use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

/// Whether a terminal is ours to read from and to set. In the background it is the shell's. One that does not control
/// our session knows no background.
fn is_ours(terminal: BorrowedFd<'_>) -> bool {
    tcgetpgrp(terminal).map_or(true, |foreground| foreground == getpgrp())
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
    pub(super) fn raw() -> Option<Self> {
        let kept = Self::new()?;
        let mut raw = kept.1.clone();
        raw.make_raw();
        tcsetattr(kept.0, OptionalActions::Now, &raw).ok()?;
        Some(kept)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if is_ours(self.0) {
            // A terminal that is gone needs no care.
            let _ = tcsetattr(self.0, OptionalActions::Now, &self.1);
        }
    }
}
