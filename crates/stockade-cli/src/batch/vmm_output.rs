//! The ways on which a VMM's output comes to our streams where it does not have them itself.

use super::multiplex::Prefixed;
use crate::terminal::pty::Relay;

/// Who carries it.
pub(crate) enum VmmOutput {
    /// Threads that put the jail's id before each line.
    Prefixed(Prefixed),
    /// The relay of its terminal.
    Relayed(Relay),
}

impl VmmOutput {
    /// The relay of a terminal, if it is one.
    pub(crate) fn relay(&self) -> Option<&Relay> {
        if let Self::Relayed(relay) = self { Some(relay) } else { None }
    }

    /// The same to be changed.
    pub(crate) fn relay_mut(&mut self) -> Option<&mut Relay> {
        if let Self::Relayed(relay) = self { Some(relay) } else { None }
    }

    /// Waits until everything is shown, when the jail is gone and with it all that had the streams.
    pub(crate) fn finish(self) {
        match self {
            Self::Prefixed(prefixed) => prefixed.finish(),
            Self::Relayed(relay) => drop(relay),
        }
    }
}
