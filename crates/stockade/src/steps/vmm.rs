//! The VMM's process, as a step whose undo kills it.

use std::fmt;
use std::time::Instant;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::{StepContext, StepKind, Undo, UndoOutcome};
use crate::error::Result;
use crate::sys::ProcessRef;
use crate::sys::process::{KILL_TIMEOUT, kill_rooted_at};

/// The VMM's process. The launch starts it, and writes this step to the receipt before the VMM runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vmm {
    /// The process.
    pub process: ProcessRef,
    /// Whether its descendants are searched by their root directory, because neither a cgroup nor a pid namespace
    /// contains them.
    pub search: bool,
    /// The monitor, which waits for the VMM and writes its exit status, if there is one.
    pub monitor: Option<ProcessRef>,
}

impl StepKind for Vmm {
    fn apply(&self, _: &StepContext) -> Result<()> {
        Ok(())
    }
}

impl Undo for Vmm {
    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome> {
        let mut outcome = UndoOutcome::NeverThere;
        if !ctx.this_boot {
            return Ok(outcome);
        }
        if let Some(process) = self.process.open()? {
            process.signal(Signal::KILL)?;
            if !process.wait_for_exit(Some(Instant::now() + KILL_TIMEOUT))? {
                return Ok(UndoOutcome::Left(format!("process {} does not exit", self.process.pid)));
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

/// Waits for the monitor, which writes the exit status and exits once the VMM has exited.
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
