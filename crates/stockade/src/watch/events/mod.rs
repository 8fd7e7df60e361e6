//! The events of jails, for any process: without a daemon, a thread or polling.

mod ends;
mod event;
mod sources;
mod tracker;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

pub use ends::{End, Ends};
pub use event::{Event, EventKind};

use crate::error::{Error, Result};
use crate::spec::clock::now_ms;
use crate::spec::{ExitStatus, JailId};
use crate::state::{Receipt, Store, SubscriberLock, Tombstone};
use crate::steps::Vmm;
use sources::{Notification, Sources};
use tracker::EventTracker;

/// The events of the jails of a state directory, whichever process causes them.
///
/// The events of one jail come in the order of [`EventKind`], each once: created, started, exited, removed. If a start
/// fails, the jail can be started again, and then has the events started and exited again. Several jails of one id come
/// one after the other. Events of different jails come in the order in which this process noticed them.
///
/// No event is lost as long as [`Events::next`] is called from time to time: the events of a jail that was created and
/// removed between two calls are reported afterwards. If the kernel's queue overflows, [`EventKind::Missed`] is
/// reported. The queue holds 16384 notifications by default (`fs.inotify.max_queued_events`), and a jail needs about
/// ten. The exit of a VMM is reported after its parent has recorded the exit status, or has exited itself.
#[derive(Debug)]
pub struct Events {
    store: Store,
    sources: Sources,
    tracker: EventTracker,
    /// Keeps the state directory in existence.
    subscriber_lock: Option<SubscriberLock>,
    /// The jails to report; `None` for all.
    only: Option<BTreeSet<JailId>>,
}

impl Store {
    /// Subscribes to the events of jails from now on.
    ///
    /// Creates a missing state directory, and keeps it in existence at least as long as the returned value.
    ///
    /// # Errors
    /// Returns an error if the state directory cannot be created or watched.
    pub fn events(&self) -> Result<Events> {
        let mut events = self.events_from_the_start()?;
        events.tracker.discard_pending();
        Ok(events)
    }

    /// Subscribes to the events of jails, beginning with the past events of existing jails.
    ///
    /// # Errors
    /// As for [`Store::events`].
    pub fn events_from_the_start(&self) -> Result<Events> {
        let subscriber_lock = SubscriberLock::in_directory(self.directory())?;
        Events::of(self, Some(subscriber_lock), None)
    }

    /// Calls back for each event from now on, until the callback breaks with a value.
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
    /// Begins with the past events of existing jails.
    fn of(
        store: &Store,
        subscriber_lock: Option<SubscriberLock>,
        only: Option<BTreeSet<JailId>>,
    ) -> Result<Self> {
        let sources = Sources::of(store)?;
        let mut events =
            Self { store: store.clone(), sources, tracker: EventTracker::default(), subscriber_lock, only };
        let existing = events.all()?;
        events.examine_all(existing)?;
        Ok(events)
    }

    /// Waits for the next event, at most until `deadline`; `None` if there is none. Does not block if the deadline has
    /// passed.
    ///
    /// # Errors
    /// Returns an error if the state directory or a process cannot be watched.
    pub fn next(&mut self, deadline: Option<Instant>) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.tracker.next() {
                return Ok(Some(event));
            }
            self.catch_up()?;
            if self.tracker.is_empty() && !self.sources.wait(deadline)? {
                return Ok(None);
            }
        }
    }

    fn catch_up(&mut self) -> Result<()> {
        let notifications = self.sources.take()?;
        let changed = self.apply(notifications)?;
        self.examine_all(changed)
    }

    fn examine_all(&mut self, mut changed: BTreeSet<JailId>) -> Result<()> {
        while let Some(id) = changed.pop_first() {
            changed.append(&mut self.examine(&id)?);
        }
        Ok(())
    }

    /// Reports removed jails, and returns the jails to examine.
    fn apply(&mut self, notifications: Vec<Notification>) -> Result<BTreeSet<JailId>> {
        let mut changed = BTreeSet::new();
        for notification in notifications {
            match notification {
                Notification::Removed(Tombstone { id, .. }) | Notification::Changed(id)
                    if !self.concerns(&id) => {}
                Notification::Changed(id) => drop(changed.insert(id)),
                Notification::Removed(tombstone) => {
                    self.sources.unwatch_process(&tombstone.id);
                    self.tracker.apply_tombstone(&tombstone);
                }
                Notification::Overflow => {
                    self.tracker.report_missed();
                    changed.extend(self.all()?);
                }
                Notification::DirectoryRemoved => {
                    self.tracker.report_missed();
                    if self.subscriber_lock.is_some() {
                        self.subscriber_lock = Some(SubscriberLock::in_directory(self.store.directory())?);
                        self.sources = Sources::of(&self.store)?;
                    }
                    changed.extend(self.all()?);
                }
            }
        }
        Ok(changed)
    }

    /// The existing jails, and the jails whose removal was not reported yet.
    fn all(&self) -> Result<BTreeSet<JailId>> {
        let all = self.store.ids()?.into_iter().chain(self.tracker.ids());
        Ok(all.filter(|id| self.concerns(id)).collect())
    }

    /// Whether a jail exists according to the reported events.
    fn knows(&self, id: &JailId) -> bool {
        self.tracker.knows(id)
    }

    fn concerns(&self, id: &JailId) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(id))
    }

    /// Examines a jail, and returns the jails to examine because of notifications that arrived during that.
    fn examine(&mut self, id: &JailId) -> Result<BTreeSet<JailId>> {
        self.tracker.begin_read();
        // First the watch, then the receipt, then the notifications that arrived until then. So the receipt is as new
        // as the watch, and a receipt that is already out of date is recognised.
        self.sources.watch_entry(id)?;
        let receipt = self.store.read(id);
        let has_entry = rustix::fs::lstat(self.store.entry_path(id).as_path()).is_ok();
        let notifications = self.sources.take_inotify()?;
        let changed = self.apply(notifications)?;
        match receipt {
            Ok(Some(receipt)) => {
                if self.tracker.apply_receipt(&receipt) {
                    self.examine_processes(&receipt)?;
                }
            }
            // The jail is being created or removed, and a notification will follow.
            Ok(None) if has_entry => (),
            Ok(None) => {
                self.sources.unwatch_process(id);
                // If another jail of this id was created since, it is examined next.
                if !changed.contains(id) {
                    self.tracker.report_removed(id);
                }
            }
            Err(Error::Receipt { problem, .. }) => self.tracker.report_corrupt(id, problem),
            Err(error) if error.is_shortage() => return Err(error),
            Err(error) => self.tracker.report_corrupt(id, error.to_string()),
        }
        Ok(changed)
    }

    /// Reports a dead VMM or owning process of a jail, or watches the living one.
    fn examine_processes(&mut self, receipt: &Receipt) -> Result<()> {
        let id = &receipt.id;
        let Some(vmm) = receipt.vmm_step() else {
            let has_exited = receipt.is_here() && !self.sources.watch_process(id, receipt.keeper)?;
            if has_exited && receipt.keeper.is_some() && self.is_unchanged(receipt) {
                self.tracker.report_abandoned(id);
            }
            return Ok(());
        };
        if !self.tracker.is_running(id) {
            self.sources.unwatch_process(id);
            return Ok(());
        }
        if let Some(how) = self.exit_status(receipt, vmm)? {
            self.sources.unwatch_process(id);
            let oom_kills = self.store.oom_kills(receipt);
            self.tracker.report_exit(id, how, oom_kills, self.store.ended_ms(id).unwrap_or_else(now_ms));
        }
        Ok(())
    }

    /// Whether a receipt still exists, with the same owning process and without a VMM. Before its exit, the owning
    /// process may have persisted or removed the jail after the receipt was read.
    fn is_unchanged(&self, receipt: &Receipt) -> bool {
        let same =
            |now: Receipt| now.nonce == receipt.nonce && now.keeper == receipt.keeper && now.vmm().is_none();
        self.store.read(&receipt.id).is_ok_and(|now| now.is_some_and(same))
    }

    /// The exit status of a VMM; `None` if the VMM runs, or if a notification will follow.
    fn exit_status(&mut self, receipt: &Receipt, vmm: &Vmm) -> Result<Option<ExitStatus>> {
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
        if self.sources.watch_process(id, vmm.monitor)? {
            // It records the exit status before it exits, so that other commands find what this one reports.
            return Ok(None);
        }
        if let Some(how) = self.store.ended(id).or_else(|| vmm.process.status()) {
            return Ok(Some(how));
        }
        if self.sources.watch_process(id, receipt.keeper.filter(|_| vmm.monitor.is_none()))? {
            // Its parent knows the exit status, and will record it.
            return Ok(None);
        }
        // The parent may have recorded the exit status just before its own exit. If the jail is being removed, its
        // tombstone will contain the exit status.
        let how = self.store.ended(id);
        let is_same = |now: Option<Receipt>| now.is_some_and(|now| now.nonce == receipt.nonce);
        let exists = self.store.read(id).is_ok_and(is_same);
        Ok(if exists { Some(how.unwrap_or(ExitStatus::Unknown)) } else { how })
    }
}

impl AsFd for Events {
    /// Readable when there may be an event, for poll, epoll, or a runtime built on them.
    ///
    /// Before each wait, call [`Events::next`] with a deadline that has passed, until it returns `None`: events that were
    /// already taken from the kernel do not make the file descriptor readable.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sources.as_fd()
    }
}
