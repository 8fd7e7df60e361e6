//! A jail that this process has locked.

use crate::error::Result;
use crate::jail::teardown::{Report, TeardownOptions, tear_down};
use crate::state::Receipt;
use crate::state::entry::Lock;
use crate::steps::{Step, StepContext, UndoOutcome};

/// A locked jail: its lock, its receipt, and the context of its steps.
#[derive(Debug)]
pub(crate) struct LockedJail {
    pub(crate) lock: Lock,
    pub(crate) receipt: Receipt,
    pub(crate) ctx: StepContext,
}

impl LockedJail {
    pub(crate) fn new(lock: Lock, receipt: Receipt) -> Self {
        Self { ctx: receipt.step_context(), lock, receipt }
    }

    pub(crate) fn tear_down(self) -> Result<Report> {
        self.tear_down_with(TeardownOptions::default())
    }

    pub(crate) fn tear_down_with(self, options: TeardownOptions) -> Result<Report> {
        let never_ran = self.receipt.vmm().is_none();
        let report = tear_down(self.lock, self.receipt, &self.ctx, options);
        if never_ran {
            self.ctx.remove_parents();
        }
        report
    }

    /// Ends a failed launch. A persistent jail is created again, any other is removed.
    pub(crate) fn roll_back(mut self) -> Result<()> {
        if self.receipt.keeper.is_some() {
            let report = tear_down(self.lock, self.receipt, &self.ctx, TeardownOptions::default());
            self.ctx.remove_parents();
            return report.map(drop);
        }
        // A VMM that does not exit stays on the receipt.
        let ended = |step: &Step| match step {
            Step::Vmm(_) => !matches!(step.undo(&self.ctx), UndoOutcome::Left(_)),
            _ => false,
        };
        self.receipt.steps.retain(|step| !ended(step));
        self.lock.remove_monitor_files()?;
        self.lock.write(&self.receipt)
    }

    /// Writes a step to the receipt before it is applied.
    pub(crate) fn append(&mut self, step: Step) -> Result<()> {
        self.receipt.steps.push(step);
        // A step that cannot be written is not applied, and must not prevent the others from being written.
        self.lock.write(&self.receipt).inspect_err(|_| drop(self.receipt.steps.pop()))
    }
}

/// A locked jail until a method consumes it.
#[derive(Debug)]
pub(crate) struct Owned(Option<LockedJail>);

impl Owned {
    pub(crate) fn new(jail: LockedJail) -> Self {
        Self(Some(jail))
    }

    pub(crate) fn get(&self) -> &LockedJail {
        match &self.0 {
            Some(jail) => jail,
            None => unreachable!("a jail is used only until a method consumes it"),
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut LockedJail {
        match &mut self.0 {
            Some(jail) => jail,
            None => unreachable!("a jail is used only until a method consumes it"),
        }
    }

    /// Takes the jail out; the value is never used again.
    pub(crate) fn take(&mut self) -> LockedJail {
        match self.0.take() {
            Some(jail) => jail,
            None => unreachable!("a jail is consumed once"),
        }
    }

    /// Takes the jail out when the value is dropped, unless a method has consumed it.
    pub(crate) fn take_unless_consumed(&mut self) -> Option<LockedJail> {
        self.0.take()
    }
}
