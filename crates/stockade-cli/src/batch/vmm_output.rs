//! How a VMM's output reaches the command's streams if the VMM does not have them itself.

use super::multiplex::Prefixed;
use crate::terminal::pty::Relay;

/// The carrier of a VMM's output.
pub(crate) enum VmmOutput {
    /// Threads that put the jail's id before each line.
    Prefixed(Prefixed),
    /// The relay of its terminal.
    Relayed(Relay),
}

impl VmmOutput {
    pub(crate) fn relay(&self) -> Option<&Relay> {
        if let Self::Relayed(relay) = self { Some(relay) } else { None }
    }

    pub(crate) fn relay_mut(&mut self) -> Option<&mut Relay> {
        if let Self::Relayed(relay) = self { Some(relay) } else { None }
    }

    /// Waits until all output is shown. Call it after the jail is removed, so that no process holds the streams.
    pub(crate) fn finish(self) {
        match self {
            Self::Prefixed(prefixed) => prefixed.finish(),
            Self::Relayed(relay) => drop(relay),
        }
    }
}
