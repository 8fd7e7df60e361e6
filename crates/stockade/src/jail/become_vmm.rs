//! As Firecracker's jailer does: the process that creates the jail becomes the VMM.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{CWD, ResolveFlags};

use crate::entry::program::Entry;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::plan::{LaunchMode, Plan, plan};
use crate::spec::{JailSpec, Layout};
use crate::steps::StepContext;
use crate::sys::open::open_directory;

pub use stockade_syscalls::program::close_inherited;

/// Creates the jail and becomes its VMM. Returns only after an error.
///
/// There is no receipt, and no process supervises the jail. As with Firecracker's jailer, its removal is left to the
/// caller. An existing tree is taken over. The calling process must have no other thread.
///
/// # Arguments
/// `host` is the description of the host with which the specification was checked. `warn` receives the errors
/// of optional steps, without which the jail is used.
pub fn become_vmm(spec: &JailSpec, host: &Host, warn: &mut dyn FnMut(&Error)) -> Error {
    match prepare(spec, host, warn) {
        Ok(mut entry) => {
            let failure = entry.program.run();
            // This process is in the jail.
            let root = open_directory(CWD, Path::new("/"), ResolveFlags::empty()).ok();
            entry.error(failure.call, failure.errno).explained(root.as_ref().map(AsFd::as_fd))
        }
        Err(error) => error,
    }
}

fn prepare(spec: &JailSpec, host: &Host, warn: &mut dyn FnMut(&Error)) -> Result<Entry> {
    let Plan { prepare, enter } = plan(spec, host, LaunchMode::BecomeVmm)?;
    let ctx = StepContext::new(Layout::new(spec), None);
    for step in &prepare {
        match step.apply_in_drop_in(&ctx) {
            Err(error) if step.is_optional() => warn(&error),
            applied => applied?,
        }
    }
    Ok(Entry::new(&enter, ctx.tree()?, [None, None, None])?)
}
