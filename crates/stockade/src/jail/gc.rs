//! Removing abandoned jails.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::jail::bulk::each;
use crate::jail::teardown::{Leftover, Report, TeardownOptions, tear_down};
use crate::spec::{JailId, JailPath};
use crate::state::{JailState, Receipt, Store, remove_strays};
use crate::steps::Step;
use crate::sys::Progress;
use crate::sys::owned_dir::{remove_if_marked_and_empty, remove_temporary};

/// The result of a collection, or of a dry run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Collection {
    /// The reports on the abandoned jails.
    pub jails: Vec<Report>,
    /// Jails whose receipts cannot be understood, or that could not be examined, with the reasons.
    pub problems: Vec<Leftover>,
}

impl Collection {
    /// Whether all abandoned jails were removed without problems.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty() && self.jails.iter().all(Report::is_clean)
    }
}

impl Store {
    /// Removes abandoned jails.
    ///
    /// Jails in other states, and jails that another process has locked, are not touched. Corrupt jails are
    /// not touched either, and are reported.
    ///
    /// # Arguments
    /// With `dry_run` nothing is changed, and the reports list the objects that would be removed.
    ///
    /// # Errors
    /// Returns an error if the state directory cannot be read. Errors of single jails are in the collection.
    pub fn collect(&self, dry_run: bool) -> Result<Collection> {
        self.collect_with(dry_run, TeardownOptions::default())
    }

    /// The same, with these options for the teardowns.
    ///
    /// # Errors
    /// Returns the errors of [`Store::collect`].
    pub fn collect_with(&self, dry_run: bool, options: TeardownOptions) -> Result<Collection> {
        self.collect_with_progress(dry_run, options, &|_| ())
    }

    /// The same, and calls `on_progress` with the number of examined jails, from several threads.
    ///
    /// # Errors
    /// Returns the errors of [`Store::collect`].
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
                // Another process is working on it, or its VMM is running.
                Err(Error::Locked { .. } | Error::Running { .. }) => (),
                Err(e) => {
                    collection.problems.push(Leftover { what: format!("jail {id}"), reason: e.to_string() });
                }
            }
        }
        if !dry_run {
            // It may have been created for a jail that never got its entry.
            remove_if_marked_and_empty(self.directory())?;
        }
        Ok(collection)
    }

    fn collect_one(&self, id: &JailId, dry_run: bool, options: TeardownOptions) -> Result<Option<Report>> {
        // First without the lock, which would keep the owning processes from their jails.
        let is_abandoned = |receipt: &Receipt| receipt.state() == JailState::Abandoned;
        if self.read(id)?.is_some_and(|receipt| !is_abandoned(&receipt)) {
            return Ok(None);
        }
        let Some(lock) = self.try_lock(id)? else { return Ok(None) };
        match lock.read()? {
            // The process was killed between creating the entry and writing the receipt. Nothing else was created.
            None if dry_run => Ok(None),
            None => lock.remove_unused().map(|()| None),
            Some(receipt) if !is_abandoned(&receipt) => Ok(None),
            Some(receipt) if dry_run => Ok(Some(would_remove(&receipt))),
            Some(receipt) => {
                let ctx = receipt.step_context();
                tear_down(lock, receipt, &ctx, options).map(Some)
            }
        }
    }
}

fn would_remove(receipt: &Receipt) -> Report {
    // The process of an abandoned jail has exited, and its root is removed with its directory.
    let is_listed = |step: &&Step| match step {
        Step::Vmm(_) => false,
        Step::Directory(directory) => directory.path != JailPath::root(),
        _ => true,
    };
    let removed = receipt.steps.iter().rev().filter(is_listed).map(ToString::to_string).collect();
    Report { id: receipt.id.clone(), removed, kept: Vec::new(), shared: Vec::new(), left: Vec::new() }
}
