//! Finding jails, and removing what dead ones left.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::events::remove_strays;
use crate::process::Ended;
use crate::receipt::{Glance, JailState, Receipt};
use crate::spec::{HostPath, JailId, JailPath};
use crate::step::{Progress, Step, remove_if_ours_and_empty, remove_unnamed};
use crate::store::Store;
use crate::teardown::{Leftover, Report, TeardownOptions, tear_down};
use crate::together::each;

/// A jail as the state directory knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// Its id.
    pub id: JailId,
    /// Its VMM's pid, while that runs.
    pub pid: Option<i32>,
    /// How it is.
    pub state: JailState,
    /// How its VMM ended, if it has and that was written down.
    pub ended: Option<Ended>,
    /// How long ago it was made, in seconds.
    #[serde(rename = "age_seconds")]
    pub age: Option<u64>,
    /// The name of its VMM's executable.
    pub vmm: Option<String>,
    /// The directory it was made in.
    pub base: Option<HostPath>,
    /// Who its VMM runs as.
    pub uid: Option<u32>,
    /// What is wrong with its receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Listing {
    /// A jail as its receipt tells.
    pub fn of(receipt: &Receipt) -> Self {
        let state = receipt.state();
        Self {
            id: receipt.id.clone(),
            pid: receipt.vmm().filter(|_| state == JailState::Running).map(|vmm| vmm.pid),
            state,
            ended: None,
            age: Some(receipt.age().as_secs()),
            vmm: Some(receipt.spec.exec_file.name().to_owned()),
            base: Some(receipt.spec.base.clone()),
            uid: Some(receipt.spec.owner.uid),
            problem: None,
        }
    }

    fn at(glance: Glance) -> Self {
        let state = glance.state();
        Self {
            pid: glance.vmm().filter(|_| state == JailState::Running).map(|vmm| vmm.pid),
            state,
            ended: None,
            age: Some(glance.age().as_secs()),
            vmm: Some(glance.spec.exec_file.name().to_owned()),
            base: Some(glance.spec.base),
            uid: Some(glance.spec.owner.uid),
            id: glance.id,
            problem: None,
        }
    }

    /// With what the monitor has written down in the state directory.
    fn with_end(self, store: &Store) -> Self {
        let ended = (self.state == JailState::Ended).then(|| store.ended(&self.id)).flatten();
        Self { ended, ..self }
    }

    /// One whose receipt cannot be understood.
    pub fn damaged(id: JailId, problem: String) -> Self {
        let (pid, ended, age, vmm, base, uid) = (None, None, None, None, None, None);
        Self { id, pid, state: JailState::Damaged, ended, age, vmm, base, uid, problem: Some(problem) }
    }
}

/// What a collection did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Collection {
    /// Dead jails, and what became of them.
    pub jails: Vec<Report>,
    /// Receipts that could not be acted on, and other jails that could not be looked at.
    pub problems: Vec<Leftover>,
}

impl Collection {
    /// Whether nothing is left that should be gone.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty() && self.jails.iter().all(Report::is_clean)
    }
}

impl Store {
    /// Every jail, with its state.
    ///
    /// # Errors
    /// What the kernel says of reading the state directory. A damaged receipt is an entry of the list.
    pub fn list(&self) -> Result<Vec<Listing>> {
        let listings = self.ids()?.into_iter().filter_map(|id| match self.glance(&id) {
            Ok(glance) => glance.map(|glance| Listing::at(glance).with_end(self)),
            Err(e) => Some(Listing::damaged(id, e.to_string())),
        });
        Ok(listings.collect())
    }

    /// Removes what dead jails left. Jails that run, are prepared or are being worked on are left alone;
    /// so are receipts that cannot be understood, which are reported.
    ///
    /// # Arguments
    /// With `dry_run` nothing is changed, and the report lists what would be removed.
    ///
    /// # Errors
    /// What the kernel says of reading the state directory. What goes wrong with one jail is in the
    /// collection.
    pub fn collect(&self, dry_run: bool) -> Result<Collection> {
        self.collect_with(dry_run, TeardownOptions::default())
    }

    /// The same, with dead jails torn down in this way.
    ///
    /// # Errors
    /// As for [`Store::collect`].
    pub fn collect_with(&self, dry_run: bool, options: TeardownOptions) -> Result<Collection> {
        self.collect_with_progress(dry_run, options, &|_| ())
    }

    /// The same, telling how many of all jails have been seen to, from several threads.
    ///
    /// # Errors
    /// As for [`Store::collect`].
    pub fn collect_with_progress(
        &self,
        dry_run: bool,
        options: TeardownOptions,
        tell: &(dyn Fn(Progress) + Sync),
    ) -> Result<Collection> {
        let mut collection = Collection::default();
        if !dry_run {
            remove_unnamed(self.directory());
            remove_strays(self.directory());
        }
        let ids = self.ids()?;
        let (done, total) = (AtomicU64::new(0), ids.len() as u64);
        let collected = each(ids, |id| {
            let outcome = self.collect_one(&id, dry_run, options);
            tell(Progress { done: done.fetch_add(1, Ordering::Relaxed) + 1, total });
            (outcome, id)
        });
        for (outcome, id) in collected {
            match outcome {
                Ok(report) => collection.jails.extend(report),
                // Somebody else's affair.
                Err(Error::Locked { .. } | Error::Running { .. }) => (),
                Err(e) => {
                    collection.problems.push(Leftover { what: format!("jail {id}"), reason: e.to_string() });
                }
            }
        }
        if !dry_run {
            // Made for a jail that never got its place.
            remove_if_ours_and_empty(self.directory())?;
        }
        Ok(collection)
    }

    fn collect_one(&self, id: &JailId, dry_run: bool, options: TeardownOptions) -> Result<Option<Report>> {
        // First without the lock, which would be in the way of those whose jails these are.
        let dead = |receipt: &Receipt| receipt.state() == JailState::Dead;
        if self.read(id)?.is_some_and(|receipt| !dead(&receipt)) {
            return Ok(None);
        }
        let Some(lock) = self.try_lock(id)? else { return Ok(None) };
        match lock.read()? {
            // Killed between taking the place and writing the receipt: nothing else was made.
            None if dry_run => Ok(None),
            None => lock.remove_unused().map(|()| None),
            Some(receipt) if !dead(&receipt) => Ok(None),
            Some(receipt) if dry_run => Ok(Some(would_remove(&receipt))),
            Some(receipt) => {
                let site = receipt.site();
                tear_down(lock, receipt, &site, options).map(Some)
            }
        }
    }
}

fn would_remove(receipt: &Receipt) -> Report {
    // A dead jail's process is gone, and its root goes with its directory.
    let there = |step: &&Step| match step {
        Step::Vmm(_) => false,
        Step::Folder(folder) => folder.path != JailPath::root(),
        _ => true,
    };
    let removed = receipt.steps.iter().rev().filter(there).map(ToString::to_string).collect();
    Report { id: receipt.id.clone(), removed, kept: Vec::new(), left: Vec::new() }
}
