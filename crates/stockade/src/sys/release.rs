//! Releasing a child, and waiting until it has executed its program.

use std::time::Duration;

use stockade_syscalls::program::Failure;
use stockade_syscalls::signals::is_asked_to_end;
use stockade_syscalls::spawn::{Child, Released};

use super::cgroup::Frozen;
use super::process::PidFd;
use super::stuck::{frozen_process, why_stopped};

/// The time that a child has between its release and the exec of its program.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(20);

/// The time after which a child without progress may be frozen. Most need a few milliseconds.
const SUSPICIOUS: Duration = Duration::from_millis(500);

/// What became of a released child.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It has executed its program, or was killed before.
    Executed,
    /// One of its calls has failed.
    Failed(Failure),
    /// It has done neither.
    Hindered(Hindrance),
}

/// Why the wait for a child was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hindrance {
    /// This process is asked to end.
    Signal,
    /// A cgroup that the child is in is frozen.
    Frozen(Frozen),
    /// The time is up, for this reason.
    Late(String),
}

impl PidFd {
    /// Releases a child, and waits until it has executed its program, has failed or is hindered. In the last case it
    /// lives on.
    pub(crate) fn release(child: Child) -> (Self, rustix::io::Result<Outcome>) {
        let pid = child.pid.as_raw_nonzero().get();
        let mut hindrance = None;
        let mut give_up = |waited| {
            hindrance = hindrance_of(pid, waited);
            hindrance.is_some()
        };
        let (fd, outcome) = child.release_and_wait(&mut give_up);
        let outcome = outcome.map(|released| match (released, hindrance) {
            (Released::GivenUp, Some(hindrance)) => Outcome::Hindered(hindrance),
            (Released::GivenUp, None) => unreachable!("a wait is given up for a reason"),
            (Released::Failed(failure), _) => Outcome::Failed(failure),
            (Released::Executed, _) => Outcome::Executed,
        });
        (Self::new(fd, pid), outcome)
    }
}

/// What hinders a process that another one of stockade has started, if the wait for it is to be given up.
///
/// # Arguments
/// `waited` is the time waited.
pub(crate) fn hindrance_of(pid: i32, waited: Duration) -> Option<Hindrance> {
    if is_asked_to_end() {
        return Some(Hindrance::Signal);
    }
    if waited >= SUSPICIOUS
        && let Some(frozen) = frozen_process(pid)
    {
        return Some(Hindrance::Frozen(frozen));
    }
    // Not before: under a debugger every process is stopped from time to time.
    let reason = || why_stopped(pid).unwrap_or_else(|| "its way into the jail takes too long".to_owned());
    (waited >= START_TIMEOUT).then(|| Hindrance::Late(reason()))
}
