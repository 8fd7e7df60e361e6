//! The open file limit for many jails in one process.

use rustix::process::{Resource, Rlimit, setrlimit};
use stockade_syscalls::inherited::limits;

use crate::terminal::output::Failure;
use stockade::spec::reason;

/// File descriptors of the process besides those of its jails, with a reserve.
const FOR_PROCESS: u64 = 64;

/// File descriptors of one jail at most: its state entry, its root, its VMM, two pipes, and one for its creation.
const FOR_EACH_JAIL: u64 = 6;

/// Raises the open file limit so that the process can hold this many jails.
///
/// This comes before the first jail, because created jails cannot be removed well without file descriptors.
///
/// # Errors
/// Returns the number of file descriptors needed if the hard limit is lower.
pub(crate) fn raise_limit_for(jails: usize) -> Result<(), Failure> {
    // One jail hardly needs more than any other process, so a low limit does not fail it here.
    if jails < 2 {
        return Ok(());
    }
    let wanted = FOR_PROCESS + FOR_EACH_JAIL * jails as u64;
    let limit = limits(Resource::Nofile)
        .map_err(|e| Failure::new(format!("cannot read the open file limit: {}", reason(&e))))?;
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    if limit.maximum.is_some_and(|maximum| maximum < wanted) {
        let maximum = limit.maximum.unwrap_or_default();
        return Err(Failure::new(format!(
            "{jails} jails need {wanted} open files, but the hard limit is {maximum}; raise it with \
             `ulimit -Hn {wanted}` or run fewer jails at once"
        )));
    }
    // The VMMs do not inherit it: their own limit is set when they enter the jail.
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit })
        .map_err(|e| Failure::new(format!("cannot raise the open file limit to {wanted}: {}", reason(&e))))
}
