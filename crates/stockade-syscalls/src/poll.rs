//! Waits for file descriptors until a deadline.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, Timespec, poll};
use rustix::io::{Errno, Result};

/// Waits until one of these is ready; false at the deadline. Without a deadline it waits for ever. A signal does not
/// end the wait.
///
/// # Errors
/// Returns the errors of `poll` except EINTR.
pub fn wait_until(waiting: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<bool> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // `None` if the time is longer than poll(2) takes.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(waiting, left.as_ref()) {
            Err(Errno::INTR) => (),
            ready => return ready.map(|ready| ready > 0),
        }
    }
}

/// Whether one of these is ready.
///
/// # Errors
/// Returns the errors of [`wait_until`].
pub fn is_ready(waiting: &mut [PollFd<'_>]) -> Result<bool> {
    wait_for(waiting, Duration::ZERO)
}

/// Like [`wait_until`], at most for this time.
///
/// # Errors
/// Returns the errors of [`wait_until`].
pub fn wait_for(waiting: &mut [PollFd<'_>], time: Duration) -> Result<bool> {
    wait_until(waiting, Instant::now().checked_add(time))
}
