//! Exclusive locks on open files, waited for only a short time: any process that can open a file can hold its lock.

use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// The longest wait for a lock. Stockade itself holds one for some milliseconds.
const LONGEST: Duration = Duration::from_secs(1);

/// Locks an open file or directory until its last file descriptor is closed.
///
/// # Errors
/// Returns EWOULDBLOCK if another process holds the lock for a second, and any other error of `flock`.
pub(crate) fn lock(file: impl AsFd) -> Result<(), Errno> {
    let deadline = Instant::now() + LONGEST;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => sleep(Duration::from_millis(1)),
            Err(Errno::INTR) => (),
            locked => return locked,
        }
    }
}
