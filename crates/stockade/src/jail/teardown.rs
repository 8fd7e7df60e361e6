//! Teardown: undoing the steps from the last to the first, and the report of it.

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

/// The report of a teardown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The id of the jail.
    pub id: JailId,
    /// The removed objects.
    pub removed: Vec<String>,
    /// Objects that stay on purpose, for example because other jails use them.
    pub kept: Vec<Leftover>,
    /// Those of them that have a name of the user's choice and were created for this jail: its network namespace.
    #[serde(skip)]
    pub shared: Vec<Leftover>,
    /// Objects that could not be removed. Their steps stay on the receipt, so that `gc` or `rm` can try again.
    pub left: Vec<Leftover>,
}

/// An object that was not removed, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// The object.
    pub what: String,
    /// The reason.
    pub reason: String,
}

impl Report {
    fn new(id: JailId) -> Self {
        Self { id, removed: Vec::new(), kept: Vec::new(), shared: Vec::new(), left: Vec::new() }
    }

    /// Records the outcome of a step, and the step itself if it has to be undone again.
    fn record(&mut self, step: &Step, outcome: UndoOutcome, remaining: &mut Vec<Step>) {
        let leftover = |reason| Leftover { what: step.to_string(), reason };
        match outcome {
            UndoOutcome::Removed => {
                log::info!("removed {step}");
                self.removed.push(step.to_string());
            }
            UndoOutcome::NeverThere => log::debug!("did not exist: {step}"),
            UndoOutcome::Kept(reason) => {
                log::info!("kept {step}: {reason}");
                if matches!(step, Step::NamedNetns(_)) {
                    self.shared.push(leftover(reason.clone()));
                }
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

    /// Whether everything was removed that had to be.
    pub fn is_clean(&self) -> bool {
        self.left.is_empty()
    }
}

/// The steps to undo after the one at `failed` did not succeed. A step that found something in its way
/// created nothing.
pub(crate) fn begun<'s>(steps: &'s [Step], failed: usize, error: &Error) -> &'s [Step] {
    &steps[..if matches!(error, Error::InTheWay { .. }) { failed } else { failed + 1 }]
}

/// Undoes steps from the last to the first, and adds those that cannot be undone to `remaining`.
pub(crate) fn undo(id: &JailId, steps: &[Step], ctx: &StepContext, remaining: &mut Vec<Step>) -> Report {
    let mut report = Report::new(id.clone());
    let directory = steps.iter().position(|step| matches!(step, Step::JailDirectory(_)));
    let mut deferred = Vec::new();
    for (index, step) in steps.iter().enumerate().rev() {
        if directory.is_some_and(|directory| directory < index)
            && let Some(path) = removed_with_directory(step, steps)
        {
            ctx.track_removal(path);
            deferred.push((step, path));
            continue;
        }
        let outcome = step.undo(ctx);
        if directory == Some(index) {
            for (step, path) in deferred.drain(..) {
                report.record(step, outcome_of(step, path, &outcome, ctx), remaining);
            }
        }
        report.record(step, outcome, remaining);
        if ctx.has_unseen() {
            // A process may use the rest. It stays on the receipt, in its order.
            remaining.extend(deferred.drain(..).rev().map(|(step, _)| step.clone()));
            remaining.splice(0..0, steps[..index].iter().cloned());
            break;
        }
    }
    report
}

/// The path of a step's object, if it is removed together with the jail's directory. Objects in a ramfs are not.
fn removed_with_directory<'s>(step: &'s Step, steps: &[Step]) -> Option<&'s JailPath> {
    let is_in = |path: &JailPath, step: &Step| match step {
        Step::Ramfs(ramfs) => path.relative().starts_with(ramfs.path.relative()),
        _ => false,
    };
    step.in_directory().filter(|path| !steps.iter().any(|step| is_in(path, step)))
}

/// The outcome of a step whose object is removed with the jail's directory. If the directory could not be
/// removed, the step is undone by itself.
fn outcome_of(step: &Step, path: &JailPath, directory: &UndoOutcome, ctx: &StepContext) -> UndoOutcome {
    match directory {
        _ if ctx.was_removed(path) => UndoOutcome::Removed,
        UndoOutcome::Left(_) => step.undo(ctx),
        UndoOutcome::Removed | UndoOutcome::NeverThere | UndoOutcome::Kept(_) => UndoOutcome::NeverThere,
    }
}

/// The options of a teardown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TeardownOptions {
    /// Whether foreign mounts in the jail's directory are unmounted. Otherwise they and the directory are
    /// left. Files in such a mount are never touched.
    pub unmount_foreign: bool,
    /// The time for which the VMM may exit by itself after SIGTERM, before it is killed; `None` kills it at once.
    pub grace: Option<Duration>,
}

/// Undoes all steps on a receipt and removes it, or keeps the remaining steps on it.
pub(crate) fn tear_down(
    lock: Lock,
    mut receipt: Receipt,
    ctx: &StepContext,
    options: TeardownOptions,
) -> Result<Report> {
    let vmm = receipt.vmm().filter(|_| ctx.this_boot);
    // If it cannot be examined, nothing is changed.
    let is_running = vmm.map_or(Ok(false), |vmm| vmm.examine())?;
    if receipt.state() != JailState::Abandoned {
        // From here on it is abandoned even if this process is killed. Otherwise a persistent jail would be
        // taken for a complete one.
        receipt.over = true;
        match lock.write(&receipt) {
            // On a full disk the removal itself frees space.
            Err(Error::Operation { cause: Errno::NOSPC | Errno::DQUOT, .. }) => (),
            written => written?,
        }
    }
    let unmounted =
        if options.unmount_foreign { foreign_mounts::unmount_foreign(&receipt)? } else { Vec::new() };
    // Before its cgroups are removed.
    let recorded = lock.exit_record();
    let oom_kills = recorded.and_then(|record| record.oom_kills);
    let oom_kills = oom_kills.or_else(|| receipt.vmm().and(receipt.oom_kills())?.fact().copied());
    let mut remaining = Vec::new();
    ctx.close();
    if is_running {
        // Frozen processes do not exit, and together all exit faster. Each step reports what it cannot end.
        let _ = receipt.kill_now();
    }
    let mut report = undo(&receipt.id, &receipt.steps, ctx, &mut remaining);
    report.removed.extend(unmounted.iter().map(|mount| Described(mount).to_string()));
    if !report.is_clean() {
        report.left.extend(foreign_mounts::leftovers(&receipt, options.unmount_foreign)?);
    }
    if remaining.is_empty() {
        // The monitor may have written it since.
        let status = lock.exit_record().map(|record| record.status);
        let tombstone = receipt.tombstone(status.or(ctx.exit_status()), oom_kills);
        lock.remove(Some(&tombstone))?;
    } else {
        receipt.steps = remaining;
        receipt.over = true;
        lock.write(&receipt)?;
    }
    Ok(report)
}
