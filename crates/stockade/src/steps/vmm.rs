//! The VMM's process, as a step whose undo kills it.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{StepContext, StepKind, Undo, UndoOutcome};
use crate::error::Result;
use crate::sys::ProcessRef;
use crate::sys::rooted::may_be_confined;
use crate::sys::stuck::why_alive;

/// The time that a monitor has to exit after a kill. It has nothing to clean up.
const LAST_WAIT: Duration = Duration::from_millis(500);

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
        // If it cannot be inspected, it may be alive.
        ctx.set_unseen(true);
        let process = self.process.open()?;
        ctx.set_unseen(false);
        if let Some(process) = process {
            if !ctx.patience.spend(|deadline| process.kill(Some(deadline)))? {
                return Ok(does_not_exit(self.process.pid));
            }
            ctx.set_exit_status(process.reap()?);
            outcome = UndoOutcome::Removed;
        } else {
            self.process.reap()?;
        }
        if let Some(monitor) = self.monitor {
            wait_for_monitor(monitor, ctx)?;
        }
        if self.search
            && let Some(tree) = ctx.own_tree()?
        {
            match ctx.kill_in(tree, |pid| self.may_have_started(pid, ctx.uid))? {
                UndoOutcome::NeverThere => (),
                searched => outcome = searched,
            }
        }
        Ok(outcome)
    }
}

impl Vmm {
    /// Whether a process that cannot be inspected may be a descendant: it has the user of the jail, and is younger.
    pub(crate) fn may_have_started(&self, pid: i32, uid: Option<u32>) -> bool {
        uid.is_some_and(|uid| may_be_confined(pid, uid))
            && ProcessRef::of_pid(pid).started >= self.process.started
    }
}

/// Waits for the monitor, which writes the exit status and exits once the VMM has exited.
fn wait_for_monitor(reference: ProcessRef, ctx: &StepContext) -> Result<()> {
    let Some(monitor) = reference.open()? else { return Ok(reference.reap()?) };
    if !ctx.patience.spend(|deadline| monitor.wait_for_exit(Some(deadline)))? {
        // A stopped monitor wakes to die.
        monitor.kill(Some(Instant::now() + LAST_WAIT))?;
    }
    monitor.reap()?;
    Ok(())
}

/// The outcome of a teardown that cannot end a process.
pub(super) fn does_not_exit(pid: i32) -> UndoOutcome {
    UndoOutcome::Left(format!("process {pid} does not exit: {}", why_alive(pid)))
}

/// The reason why a jail stays whose processes cannot all be examined.
pub(crate) fn unseen(pid: i32) -> String {
    format!(
        "process {pid} may be in the jail, because its root cannot be inspected; run the command with CAP_SYS_PTRACE"
    )
}

impl fmt::Display for Vmm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VMM process {}", self.process.pid)
    }
}
