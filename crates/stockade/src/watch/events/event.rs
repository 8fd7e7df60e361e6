//! The events that subscribers receive.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::spec::{ExitStatus, JailId, Known};

/// A change in the life of a jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The time in milliseconds since 1970: the creation of the jail for [`EventKind::Created`], otherwise the moment
    /// at which this process noticed the event.
    pub time_ms: u64,
    /// The jail; `None` only for [`EventKind::Missed`].
    pub id: Option<JailId>,
    /// The kind of event.
    #[serde(flatten)]
    pub kind: EventKind,
    /// With [`EventKind::Exited`], the number of processes of the jail that the kernel killed because memory ran out;
    /// `None` if no cgroup of the jail counts them, or if the cgroup and the record were removed. The VMM need not be one
    /// of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<Known<u64>>,
}

impl fmt::Display for Event {
    /// The kind, with the killed processes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            EventKind::Exited { how } => write!(f, "exited {}", how.describe(self.oom_kills.as_ref())),
            kind => kind.fmt(f),
        }
    }
}

/// The kinds of events, in the order in which a jail has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// Its receipt was written, and its creation began.
    Created,
    /// Its VMM was started, or is about to execute.
    Started {
        /// The VMM's pid.
        pid: i32,
    },
    /// Its VMM exited.
    Exited {
        /// The exit status.
        how: ExitStatus,
    },
    /// Its owning process exited without starting a VMM. `gc` removes the jail.
    Abandoned,
    /// It was removed.
    Removed,
    /// Its receipt cannot be understood.
    Corrupt {
        /// The fault of the receipt.
        problem: String,
    },
    /// More happened than the kernel's queue holds for a subscriber that does not read it.
    ///
    /// Every jail was examined again, and its present state was reported. Jails that were created and removed in
    /// between are unknown.
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
