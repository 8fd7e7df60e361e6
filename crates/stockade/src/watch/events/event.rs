//! What is told to subscribers.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::spec::{ExitStatus, JailId};

/// Something that has happened to a jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in milliseconds since 1970: for [`EventKind::Created`] when the jail was made, otherwise when this
    /// process saw it.
    pub time_ms: u64,
    /// To which jail; `None` only for [`EventKind::Missed`].
    pub id: Option<JailId>,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What can happen to a jail, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// Its receipt was written, and it is being made.
    Created,
    /// Its VMM was started, or is just about to execute.
    Started {
        /// The VMM's pid.
        pid: i32,
    },
    /// Its VMM has ended.
    Exited {
        /// How.
        how: ExitStatus,
    },
    /// Whoever made it has ended without starting a VMM: `gc` removes it.
    Abandoned,
    /// It is gone.
    Removed,
    /// Its receipt cannot be understood.
    Corrupt {
        /// What is wrong with it.
        problem: String,
    },
    /// More happened than the kernel keeps for a subscriber that does not look. Every jail was looked at
    /// again: how each is now was told, and of those that came and went in between nothing is known.
    Missed,
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => f.write_str("created"),
            Self::Started { pid } => write!(f, "started pid {pid}"),
            Self::Exited { how } => write!(f, "exited {how}"),
            Self::Abandoned => f.write_str("abandoned"),
            Self::Removed => f.write_str("removed"),
            Self::Corrupt { problem } => write!(f, "corrupt: {problem}"),
            Self::Missed => f.write_str("missed events: this process did not keep up"),
        }
    }
}
