//! The original jailer's way: the process that makes the jail becomes the VMM.

use crate::entry::program::Entry;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::plan::{LaunchMode, Plan, plan};
use crate::spec::{JailSpec, Layout};
use crate::steps::StepContext;

pub use stockade_syscalls::program::close_inherited;

/// Makes the jail and becomes its VMM; returns only if that failed.
///
/// There is no receipt and nobody stays behind: what is made is left to the caller, as with the original. A
/// tree that is there already is taken over. The process must have no other thread.
///
/// # Arguments
/// `host` as it was found while the specification was checked; `warn` is told of what the jail has to do
/// without.
pub fn become_vmm(spec: &JailSpec, host: &Host, warn: &mut dyn FnMut(&Error)) -> Error {
    match prepare(spec, host, warn) {
        Ok(mut entry) => {
            let failure = entry.program.run();
            entry.error(failure.call, failure.errno).into()
        }
        Err(error) => error,
    }
}

fn prepare(spec: &JailSpec, host: &Host, warn: &mut dyn FnMut(&Error)) -> Result<Entry> {
    let Plan { prepare, enter } = plan(spec, host, LaunchMode::BecomeVmm)?;
    let ctx = StepContext::new(Layout::new(spec), None);
    for step in &prepare {
        match step.apply(&ctx) {
            Err(error) if step.is_optional() => warn(&error),
            applied => applied?,
        }
    }
    Ok(Entry::new(&enter, ctx.tree()?, [None, None, None])?)
}
