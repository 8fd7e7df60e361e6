//! Streams, signals and terminals: what the command is connected to.

pub(crate) mod escape;
pub(crate) mod findings;
pub(crate) mod logger;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod pty;
pub(crate) mod signal_names;
pub(crate) mod signals;
pub(crate) mod time;
pub(crate) mod width;
