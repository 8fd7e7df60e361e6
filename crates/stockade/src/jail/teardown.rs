//! Teardown: the steps undone from the end, and a report of it.

use std::time::Duration;

use rustix::io::Errno;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::jail::foreign_mounts;
use crate::spec::{JailId, JailPath};
use crate::state::entry::Lock;
use crate::state::{JailState, Receipt};
use crate::steps::{Step, StepContext, UndoOutcome};
use crate::sys::mounts::Described;

/// What became of a jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which jail.
    pub id: JailId,
    /// What was removed.
    pub removed: Vec<String>,
    /// What serves others too, and stays on purpose.
    pub kept: Vec<Leftover>,
    /// What could not be removed. The receipt keeps it, so that it can be tried again.
    pub left: Vec<Leftover>,
}

/// Something that is still there, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// What it is.
    pub what: String,
    /// Why it is still there.
    pub reason: String,
}

impl Report {
    fn new(id: JailId) -> Self {
        Self { id, removed: Vec::new(), kept: Vec::new(), left: Vec::new() }
    }

    /// Records the outcome of a step, and the step itself if it has to be undone again.
    fn record(&mut self, step: &Step, outcome: UndoOutcome, remaining: &mut Vec<Step>) {
        let leftover = |reason| Leftover { what: step.to_string(), reason };
        match outcome {
            UndoOutcome::Removed => {
                log::info!("removed {step}");
                self.removed.push(step.to_string());
            }
            UndoOutcome::NeverThere => log::debug!("was not there: {step}"),
            UndoOutcome::Kept(reason) => {
                log::info!("kept {step}: {reason}");
                self.kept.push(leftover(reason));
                // A leftover of this very jail may be the reason.
                if !remaining.is_empty() {
                    remaining.insert(0, step.clone());
                }
            }
            UndoOutcome::Left(reason) => {
                log::info!("left {step}: {reason}");
                self.left.push(leftover(reason));
                remaining.insert(0, step.clone());
            }
        }
    }

    /// Whether nothing of the jail is left.
    pub fn is_clean(&self) -> bool {
        self.left.is_empty()
    }
}

/// The steps to undo after the one at `failed` did not succeed. A step that found something in its way created nothing.
pub(crate) fn begun<'s>(steps: &'s [Step], failed: usize, error: &Error) -> &'s [Step] {
    &steps[..if matches!(error, Error::InTheWay { .. }) { failed } else { failed + 1 }]
}

/// Undoes steps from the last to the first; what cannot be undone is put into `remaining`.
pub(crate) fn undo(id: &JailId, steps: &[Step], ctx: &StepContext, remaining: &mut Vec<Step>) -> Report {
    let mut report = Report::new(id.clone());
    let directory = steps.iter().position(|step| matches!(step, Step::JailDirectory(_)));
    let mut carried = Vec::new();
    for (index, step) in steps.iter().enumerate().rev() {
        if directory.is_some_and(|directory| directory < index)
            && let Some(path) = carried_by_directory(step, steps)
        {
            ctx.track_removal(path);
            carried.push((step, path));
            continue;
        }
        let undone = step.undo(ctx);
        if directory == Some(index) {
            for (step, path) in carried.drain(..) {
                report.record(step, what_became_of(step, path, &undone, ctx), remaining);
            }
        }
        report.record(step, undone, remaining);
    }
    report
}

/// Where a step's work lies if it goes with the jail's directory, whole and at once. What is in a ramfs does not.
fn carried_by_directory<'s>(step: &'s Step, steps: &[Step]) -> Option<&'s JailPath> {
    let inside = |path: &JailPath| {
        let is_above = |ramfs: &Step| matches!(ramfs, Step::Ramfs(ramfs) if path.relative().starts_with(ramfs.path.relative()));
        steps.iter().any(is_above)
    };
    step.in_directory().filter(|path| !inside(path))
}

/// What became of a step whose work went with the jail's directory; where that is left, it is undone by itself.
fn what_became_of(step: &Step, path: &JailPath, directory: &UndoOutcome, ctx: &StepContext) -> UndoOutcome {
    match directory {
        _ if ctx.was_removed(path) => UndoOutcome::Removed,
        UndoOutcome::Left(_) => step.undo(ctx),
        _ => UndoOutcome::NeverThere,
    }
}

/// How a jail is torn down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TeardownOptions {
    /// Whether what others have mounted in the jail's directory is unmounted. Otherwise it is left, and with it
    /// the directory. What is in such a mount is never touched.
    pub unmount_foreign: bool,
    /// How long the VMM may take to end by itself after SIGTERM, before it is killed; `None` kills it at once.
    pub grace: Option<Duration>,
}

/// Undoes everything on a receipt and removes it, or keeps on it what is left.
pub(crate) fn tear_down(
    lock: Lock,
    mut receipt: Receipt,
    ctx: &StepContext,
    options: TeardownOptions,
) -> Result<Report> {
    if receipt.state() != JailState::Abandoned {
        // From here on it is dead, whoever is killed: a jail that stands by itself would be taken for whole.
        receipt.over = true;
        match lock.write(&receipt) {
            // Where there is no room for that, it is the removal that makes some.
            Err(Error::Operation { cause: Errno::NOSPC | Errno::DQUOT, .. }) => (),
            written => written?,
        }
    }
    let unmounted =
        if options.unmount_foreign { foreign_mounts::unmount_foreign(&receipt)? } else { Vec::new() };
    let mut remaining = Vec::new();
    ctx.close();
    let mut report = undo(&receipt.id, &receipt.steps, ctx, &mut remaining);
    report.removed.extend(unmounted.iter().map(|mount| Described(mount).to_string()));
    if !report.is_clean() {
        let foreign = foreign_mounts::foreign(&receipt)?.into_iter();
        let reason = || "it was not mounted by stockade".to_owned();
        report
            .left
            .extend(foreign.map(|mount| Leftover { what: Described(&mount).to_string(), reason: reason() }));
    }
    if remaining.is_empty() {
        let tombstone = receipt.tombstone(lock.exit_status().or(ctx.exit_status()));
        lock.remove(Some(&tombstone))?;
    } else {
        receipt.steps = remaining;
        receipt.over = true;
        lock.write(&receipt)?;
    }
    Ok(report)
}
