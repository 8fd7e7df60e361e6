//! Waiting for the exits of several VMMs at once.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use super::{EventKind, Events};
use crate::error::Result;
use crate::spec::{ExitStatus, JailId, Known};
use crate::state::Store;

/// The exits of the VMMs of some jails, in their order and whichever process launched them.
#[derive(Debug)]
pub struct Ends {
    /// Without a subscriber lock: the state directory exists as long as the jails.
    events: Events,
    waiting: BTreeSet<JailId>,
}

/// The exit of a VMM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The jail.
    pub id: JailId,
    /// The exit status.
    pub how: ExitStatus,
    /// The number of processes of the jail that the kernel killed because memory ran out, as in
    /// [`Event::oom_kills`](super::Event::oom_kills).
    pub oom_kills: Option<Known<u64>>,
}

impl Store {
    /// Waits for the exits of these jails' VMMs, from any process and without the jails' locks. A jail that was not
    /// started yet is waited for as well.
    ///
    /// # Errors
    /// Returns an error if the state directory does not exist or cannot be watched.
    pub fn ends(&self, ids: &[JailId]) -> Result<Ends> {
        let waiting: BTreeSet<JailId> = ids.iter().cloned().collect();
        let events = Events::of(self, None, Some(waiting.clone()))?;
        Ok(Ends { events, waiting })
    }
}

impl Ends {
    /// Waits for the next exit, at most until `deadline`; `None` if the time is up, or if every exit was returned.
    ///
    /// The status is [`ExitStatus::Unknown`] if the VMM's parent could not record it, or if the jail was removed
    /// without having been started.
    ///
    /// # Errors
    /// Returns an error if the state directory or a process cannot be watched.
    pub fn next(&mut self, deadline: Option<Instant>) -> Result<Option<(JailId, ExitStatus)>> {
        Ok(self.next_end(deadline)?.map(|end| (end.id, end.how)))
    }

    /// The same, with the processes that the kernel killed because memory ran out.
    ///
    /// # Errors
    /// As for [`Ends::next`].
    pub fn next_end(&mut self, deadline: Option<Instant>) -> Result<Option<End>> {
        while !self.waiting.is_empty() {
            let Some(event) = self.events.next(self.effective_deadline(deadline))? else {
                let missing = self.waiting.iter().find(|id| !self.events.knows(id)).cloned();
                let unknown = |id| End { id, how: ExitStatus::Unknown, oom_kills: None };
                return Ok(missing.and_then(|id| self.waiting.take(&id)).map(unknown));
            };
            let how = match event.kind {
                EventKind::Exited { how } => how,
                EventKind::Removed => ExitStatus::Unknown,
                EventKind::Created
                | EventKind::Started { .. }
                | EventKind::Abandoned
                | EventKind::Corrupt { .. }
                | EventKind::Missed => continue,
            };
            if let Some(id) = event.id.and_then(|id| self.waiting.take(&id)) {
                return Ok(Some(End { id, how, oom_kills: event.oom_kills }));
            }
        }
        Ok(None)
    }

    /// The deadline, or this moment while any of the jails is missing: its exit can be returned at once.
    fn effective_deadline(&self, deadline: Option<Instant>) -> Option<Instant> {
        if self.waiting.iter().all(|id| self.events.knows(id)) { deadline } else { Some(Instant::now()) }
    }

    /// The jails whose exit was not returned yet.
    pub fn waiting(&self) -> impl Iterator<Item = &JailId> {
        self.waiting.iter()
    }
}

impl AsFd for Ends {
    /// Readable when there may be an exit to return, as for [`Events`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}
