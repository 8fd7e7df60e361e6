//! What happens to jails, for whoever wants to know: no daemon tells, no thread listens, nothing is asked in turn.

mod ends;
mod event;
mod sources;
mod tracker;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

pub use ends::Ends;
pub use event::{Event, EventKind};

use crate::error::{Error, Result};
use crate::spec::clock::now_ms;
use crate::spec::{ExitStatus, JailId};
use crate::state::{Receipt, Store, SubscriberLock, Tombstone};
use crate::steps::Vmm;
use sources::{Notification, Sources};
use tracker::EventTracker;

/// What happens to the jails of a state directory, whichever process does it.
///
/// The events of one jail come in the order of [`EventKind`], each once: created, then started, then ended, then
/// removed. A jail whose VMM could not be started may be started again, and then has these two once more. Several
/// jails of one id come one after the other. Events of different jails come in the order in which this process
/// saw them.
///
/// Nothing is lost while [`Events::next`] is called now and then: what a jail did that came and went meanwhile
/// is told afterwards. What is more than the kernel's queue holds (16384 notes unless the host says otherwise,
/// of which a jail takes about ten) is told as [`EventKind::Missed`]. How a VMM ended is told once its parent has
/// written that down or has itself ended.
#[derive(Debug)]
pub struct Events {
    store: Store,
    sources: Sources,
    stories: EventTracker,
    /// Keeps the state directory.
    presence: Option<SubscriberLock>,
    /// The jails that it is about; every one if there are none.
    only: Option<BTreeSet<JailId>>,
}

impl Store {
    /// What happens to jails from here on.
    ///
    /// The state directory is made if it is missing, and stays at least as long as this value.
    ///
    /// # Errors
    /// What the kernel says of watching it, or of making it.
    pub fn events(&self) -> Result<Events> {
        let mut events = self.events_from_the_start()?;
        events.stories.discard_pending();
        Ok(events)
    }

    /// The same, but first what has happened to the jails that are there now.
    ///
    /// # Errors
    /// As for [`Store::events`].
    pub fn events_from_the_start(&self) -> Result<Events> {
        let presence = SubscriberLock::in_directory(self.directory())?;
        Events::of(self, Some(presence), None)
    }

    /// Calls back for everything that happens to jails from here on, until the callback breaks with a value.
    ///
    /// # Errors
    /// As for [`Store::events`].
    pub fn subscribe<T>(&self, mut callback: impl FnMut(Event) -> ControlFlow<T>) -> Result<T> {
        let mut events = self.events()?;
        loop {
            if let Some(event) = events.next(None)?
                && let ControlFlow::Break(value) = callback(event)
            {
                return Ok(value);
            }
        }
    }
}

impl Events {
    /// From the start.
    fn of(store: &Store, presence: Option<SubscriberLock>, only: Option<BTreeSet<JailId>>) -> Result<Self> {
        let sources = Sources::of(store.directory())?;
        let mut events =
            Self { store: store.clone(), sources, stories: EventTracker::default(), presence, only };
        let there = events.all()?;
        events.look_at(there)?;
        Ok(events)
    }

    /// The next event, waited for until `deadline` at most; `None` if there is none by then. With a deadline
    /// that has passed nothing is waited for.
    ///
    /// # Errors
    /// What the kernel says of watching.
    pub fn next(&mut self, deadline: Option<Instant>) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.stories.next() {
                return Ok(Some(event));
            }
            self.catch_up()?;
            if self.stories.is_quiet() && !self.sources.wait(deadline)? {
                return Ok(None);
            }
        }
    }

    /// Takes in what was noted since.
    fn catch_up(&mut self) -> Result<()> {
        let heard = self.sources.take()?;
        let changed = self.take_in(heard)?;
        self.look_at(changed)
    }

    fn look_at(&mut self, mut changed: BTreeSet<JailId>) -> Result<()> {
        while let Some(id) = changed.pop_first() {
            changed.append(&mut self.look(&id)?);
        }
        Ok(())
    }

    /// Tells of the jails that have gone, and returns those that have to be looked at.
    fn take_in(&mut self, heard: Vec<Notification>) -> Result<BTreeSet<JailId>> {
        let mut changed = BTreeSet::new();
        for heard in heard {
            match heard {
                Notification::Removed(Tombstone { id, .. }) | Notification::Changed(id)
                    if !self.concerns(&id) => {}
                Notification::Changed(id) => drop(changed.insert(id)),
                Notification::Removed(tombstone) => {
                    self.sources.leave(&tombstone.id);
                    self.stories.parted(&tombstone);
                }
                Notification::Overflow => {
                    self.stories.missed();
                    changed.extend(self.all()?);
                }
                Notification::DirectoryGone => {
                    self.stories.missed();
                    if self.presence.is_some() {
                        self.presence = Some(SubscriberLock::in_directory(self.store.directory())?);
                        self.sources = Sources::of(self.store.directory())?;
                    }
                    changed.extend(self.all()?);
                }
            }
        }
        Ok(changed)
    }

    /// The jails that are there, and those that were.
    fn all(&self) -> Result<BTreeSet<JailId>> {
        let all = self.store.ids()?.into_iter().chain(self.stories.ids());
        Ok(all.filter(|id| self.concerns(id)).collect())
    }

    /// Whether a jail is there, as far as was told.
    fn knows(&self, id: &JailId) -> bool {
        self.stories.knows(id)
    }

    fn concerns(&self, id: &JailId) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(id))
    }

    /// Looks how a jail is now, and returns those that have to be looked at because of what was noted meanwhile.
    fn look(&mut self, id: &JailId) -> Result<BTreeSet<JailId>> {
        self.stories.begin();
        // First the watch, then the receipt, then what was noted until then: what is read is as new as the watch,
        // and whether it is out of date already is known.
        self.sources.watch_place(id)?;
        let receipt = self.store.read(id);
        let has_place = rustix::fs::lstat(self.store.directory().join(id.as_str()).as_path()).is_ok();
        let heard = self.sources.take_notes()?;
        let changed = self.take_in(heard)?;
        match receipt {
            Ok(Some(receipt)) => {
                if self.stories.exists(&receipt) {
                    self.judge(&receipt)?;
                }
            }
            // It is being made or removed, which will be noted.
            Ok(None) if has_place => (),
            Ok(None) => {
                self.sources.leave(id);
                // Another of this id, made meanwhile, is looked at next.
                if !changed.contains(id) {
                    self.stories.finish(id, None);
                }
            }
            Err(Error::Receipt { problem, .. }) => self.stories.damaged(id, problem),
            Err(error) if error.is_shortage() => return Err(error),
            Err(error) => self.stories.damaged(id, error.to_string()),
        }
        Ok(changed)
    }

    /// Finds out whether a jail's VMM, or whoever made the jail, is still there, and waits for its end.
    fn judge(&mut self, receipt: &Receipt) -> Result<()> {
        let id = &receipt.id;
        let Some(vmm) = receipt.vmm_step() else {
            let is_gone = receipt.is_here() && !self.sources.watch_process(id, receipt.keeper)?;
            if is_gone && receipt.keeper.is_some() && self.is_as_it_was(receipt) {
                self.stories.abandoned(id);
            }
            return Ok(());
        };
        if !self.stories.is_running(id) {
            self.sources.leave(id);
            return Ok(());
        }
        if let Some(how) = self.end_of(receipt, vmm)? {
            self.sources.leave(id);
            self.stories.ended(id, how, self.store.ended_ms(id).unwrap_or_else(now_ms));
        }
        Ok(())
    }

    /// Whether a receipt is still there, with the same keeper: one that has ended may have let the jail stand by itself
    /// after the receipt was read, or removed it.
    fn is_as_it_was(&self, receipt: &Receipt) -> bool {
        let same =
            |now: Receipt| now.nonce == receipt.nonce && now.keeper == receipt.keeper && now.vmm().is_none();
        self.store.read(&receipt.id).is_ok_and(|now| now.is_some_and(same))
    }

    /// How a VMM ended; `None` if it runs, or will yet be heard of.
    fn end_of(&mut self, receipt: &Receipt, vmm: &Vmm) -> Result<Option<ExitStatus>> {
        let id = &receipt.id;
        if let Some(how) = self.store.ended(id) {
            return Ok(Some(how));
        }
        if !receipt.is_of_this_boot() {
            return Ok(Some(ExitStatus::Unknown));
        }
        if !receipt.is_here() || self.sources.watch_process(id, Some(vmm.process))? {
            return Ok(None);
        }
        if let Some(how) = vmm.process.status() {
            return Ok(Some(how));
        }
        if self.sources.watch_process(id, vmm.monitor.or(receipt.keeper))? {
            // Its parent knows, and writes it down.
            return Ok(None);
        }
        // It may have done so just before it ended, or the jail is being removed, and its tombstone tells.
        let how = self.store.ended(id);
        let there = |again: Option<Receipt>| again.is_some_and(|again| again.nonce == receipt.nonce);
        let is_there = self.store.read(id).is_ok_and(there);
        Ok(if is_there { Some(how.unwrap_or(ExitStatus::Unknown)) } else { how })
    }
}

impl AsFd for Events {
    /// Readable once there may be something to tell, for poll, epoll, or a runtime built on them. First
    /// [`Events::next`] has to be asked for what is there already, with a deadline that has passed, until it
    /// has nothing more.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sources.as_fd()
    }
}
