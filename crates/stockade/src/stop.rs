//! Many VMMs asked to end at once.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::error::Result;
use crate::open::Watched;
use crate::process::Ended;

/// Asks VMMs to end (SIGTERM), and kills those that have not after `grace`, which they share: it begins for all
/// of them now. Tells how each ended.
///
/// # Errors
/// What the kernel says of signalling or waiting.
pub fn stop_all(jails: &[Watched], grace: Duration) -> Result<Vec<Ended>> {
    let deadline = Instant::now().checked_add(grace);
    jails.iter().try_for_each(|jail| jail.signal(Signal::TERM))?;
    for jail in jails {
        if jail.wait_until(deadline)?.is_none() {
            jail.signal(Signal::KILL)?;
        }
    }
    jails.iter().map(|jail| Ok(jail.wait_until(None)?.unwrap_or(Ended::Unknown))).collect()
}
