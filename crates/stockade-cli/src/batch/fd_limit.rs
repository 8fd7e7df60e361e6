//! Room for many jails in one process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::terminal::output::Failure;

/// What a process has open beside its jails, with some to spare.
const FOR_ITSELF: u64 = 64;

/// What one jail has open at most: its place, its root, its VMM, two pipes, and what is open while it is made.
const FOR_EACH: u64 = 6;

/// Sees to it that a process can hold so many jails: those made would be hard to take back without descriptors.
///
/// # Errors
/// How many descriptors it would need where no more may be had.
pub(crate) fn raise_limit_for(jails: usize) -> Result<(), Failure> {
    // One jail is no reason to be strict.
    if jails < 2 {
        return Ok(());
    }
    let wanted = FOR_ITSELF + FOR_EACH * jails as u64;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    if limit.maximum.is_some_and(|most| most < wanted) {
        let most = limit.maximum.unwrap_or_default();
        return Err(Failure::new(format!(
            "{jails} jails at once need {wanted} open files, and this process may have {most}: raise that limit \
             (ulimit -Hn {wanted}), or run fewer at once"
        )));
    }
    // The VMMs have a limit of their own, which is set on their way into the jail.
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit })
        .map_err(|e| Failure::new(format!("failed to raise the limit of open files to {wanted}: {e}")))
}
