//! The VMM's process, as a step whose undoing ends it.

use std::fmt;
use std::time::Instant;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::{StepContext, StepKind, UndoOutcome};
use crate::error::Result;
use crate::sys::ProcessRef;
use crate::sys::process::{KILL_TIMEOUT, kill_rooted_at};

/// The VMM's process. It is started by the launch, which writes this step down before the VMM runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vmm {
    /// The process.
    pub process: ProcessRef,
    /// Whether its descendants have to be searched by their root directory, since neither a cgroup nor a
    /// pid namespace holds them together.
    pub search: bool,
    /// The process that waits for its end and writes that down, if there is one.
    pub monitor: Option<ProcessRef>,
}

impl StepKind for Vmm {
    fn apply(&self, _: &StepContext) -> Result<()> {
        Ok(())
    }

    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome> {
        let mut outcome = UndoOutcome::NeverThere;
        if !ctx.this_boot {
            return Ok(outcome);
        }
        if let Some(process) = self.process.open()? {
            process.signal(Signal::KILL)?;
            if !process.wait_for_exit(Some(Instant::now() + KILL_TIMEOUT))? {
                return Ok(UndoOutcome::Left(format!("process {} does not end", self.process.pid)));
            }
            ctx.set_exit_status(process.reap()?);
            outcome = UndoOutcome::Removed;
        } else {
            self.process.reap()?;
        }
        if let Some(monitor) = self.monitor {
            wait_for_monitor(monitor)?;
        }
        if self.search
            && let Some(tree) = ctx.own_tree()?
            && kill_rooted_at(tree.root(), KILL_TIMEOUT)? > 0
        {
            outcome = UndoOutcome::Removed;
        }
        Ok(outcome)
    }
}

/// Waits for the monitor, which ends by itself once the VMM has, and has its last words to write.
fn wait_for_monitor(reference: ProcessRef) -> Result<()> {
    let Some(monitor) = reference.open()? else { return Ok(reference.reap()?) };
    if !monitor.wait_for_exit(Some(Instant::now() + KILL_TIMEOUT))? {
        monitor.signal(Signal::KILL)?;
        monitor.wait_for_exit(Some(Instant::now() + KILL_TIMEOUT))?;
    }
    monitor.reap()?;
    Ok(())
}

impl fmt::Display for Vmm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VMM process {}", self.process.pid)
    }
}
