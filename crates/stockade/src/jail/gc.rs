//! Removing what dead jails left.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::jail::bulk::each;
use crate::jail::teardown::{Leftover, Report, TeardownOptions, tear_down};
use crate::spec::{JailId, JailPath};
use crate::state::{JailState, Receipt, Store, remove_strays};
use crate::steps::Step;
use crate::sys::Progress;
use crate::sys::owned_dir::{remove_if_marked_and_empty, remove_temporary};

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
        on_progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Collection> {
        let mut collection = Collection::default();
        if !dry_run {
            remove_temporary(self.directory());
            remove_strays(self.directory());
        }
        let ids = self.ids()?;
        let collected = each(ids, |id| (self.collect_one(&id, dry_run, options), id), on_progress);
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
            remove_if_marked_and_empty(self.directory())?;
        }
        Ok(collection)
    }

    fn collect_one(&self, id: &JailId, dry_run: bool, options: TeardownOptions) -> Result<Option<Report>> {
        // First without the lock, which would be in the way of those whose jails these are.
        let dead = |receipt: &Receipt| receipt.state() == JailState::Abandoned;
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
                let ctx = receipt.step_context();
                tear_down(lock, receipt, &ctx, options).map(Some)
            }
        }
    }
}

fn would_remove(receipt: &Receipt) -> Report {
    // A dead jail's process is gone, and its root goes with its directory.
    let there = |step: &&Step| match step {
        Step::Vmm(_) => false,
        Step::Directory(folder) => folder.path != JailPath::root(),
        _ => true,
    };
    let removed = receipt.steps.iter().rev().filter(there).map(ToString::to_string).collect();
    Report { id: receipt.id.clone(), removed, kept: Vec::new(), left: Vec::new() }
}
