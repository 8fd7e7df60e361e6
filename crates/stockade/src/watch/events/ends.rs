//! Waiting for the ends of several VMMs at once.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use super::{EventKind, Events};
use crate::error::Result;
use crate::spec::{ExitStatus, JailId};
use crate::state::Store;

/// How the VMMs of some jails end, one after the other, whoever launched them.
#[derive(Debug)]
pub struct Ends {
    /// Nothing is made for it in the state directory: while the jails are there, so is that.
    events: Events,
    waiting: BTreeSet<JailId>,
}

impl Store {
    /// Waits for the ends of these jails' VMMs, from any process and without the jails' locks. A jail that was
    /// not started yet is waited for too.
    ///
    /// # Errors
    /// What the kernel says of watching the state directory, which must be there.
    pub fn ends(&self, ids: &[JailId]) -> Result<Ends> {
        let waiting: BTreeSet<JailId> = ids.iter().cloned().collect();
        let events = Events::of(self, None, Some(waiting.clone()))?;
        Ok(Ends { events, waiting })
    }
}

impl Ends {
    /// The next end, waited for until `deadline` at most; `None` if there is none by then, or none any more.
    ///
    /// [`ExitStatus::Unknown`] is that of a VMM whose parent could not write down how it ended, and of a jail that is
    /// gone without having been started.
    ///
    /// # Errors
    /// What the kernel says of watching.
    pub fn next(&mut self, deadline: Option<Instant>) -> Result<Option<(JailId, ExitStatus)>> {
        while !self.waiting.is_empty() {
            let Some(event) = self.events.next(self.patience(deadline))? else {
                let gone = self.waiting.iter().find(|id| !self.events.knows(id)).cloned();
                return Ok(gone.and_then(|id| self.waiting.take(&id)).map(|id| (id, ExitStatus::Unknown)));
            };
            let how = match event.kind {
                EventKind::Exited { how } => how,
                EventKind::Removed => ExitStatus::Unknown,
                _ => continue,
            };
            if let Some(id) = event.id.and_then(|id| self.waiting.take(&id)) {
                return Ok(Some((id, how)));
            }
        }
        Ok(None)
    }

    /// Nothing is waited for while one that is waited for is not there.
    fn patience(&self, deadline: Option<Instant>) -> Option<Instant> {
        if self.waiting.iter().all(|id| self.events.knows(id)) { deadline } else { Some(Instant::now()) }
    }

    /// Whose end has not been told yet.
    pub fn waiting(&self) -> impl Iterator<Item = &JailId> {
        self.waiting.iter()
    }
}

impl AsFd for Ends {
    /// Readable once there may be an end to tell, as [`Events`] is.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}
