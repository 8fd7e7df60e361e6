//! The removal of many jails at once, so that their waiting times overlap.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::jail::create::Created;
use crate::jail::open::Jail;
use crate::jail::running::Running;
use crate::jail::teardown::{Report, TeardownOptions};
use crate::sys::Progress;
use crate::sys::unheeded::Unheeded;

/// The number of jails that are worked on at once.
///
/// A teardown mostly waits: for a process to exit, or for the kernel's grace period after an unmount. Threads
/// that wait at the same time share that period.
const MOST_AT_ONCE: usize = 8;

/// Removes jails, and returns their reports in the given order.
///
/// With a grace period, which all jails share, all running VMMs first receive SIGTERM. Then those that are
/// still running are killed, and all jails are removed.
///
/// Every jail holds some file descriptors until it is removed. Pass thousands of jails in batches of some hundred.
pub fn teardown_all(jails: Vec<Jail>, options: TeardownOptions) -> Vec<Result<Report>> {
    teardown_all_with_progress(jails, options, &|_| ())
}

/// The same, and calls `on_progress` with the number of removed jails, from several threads.
pub fn teardown_all_with_progress(
    mut jails: Vec<Jail>,
    options: TeardownOptions,
    on_progress: &(dyn Fn(Progress) + Sync),
) -> Vec<Result<Report>> {
    if let Some(grace) = options.grace {
        ask_to_exit(&mut jails, grace);
    }
    for running in jails.iter().filter_map(running) {
        // The teardown kills it once more, and then reports an error.
        let _ = running.kill();
    }
    let rest = TeardownOptions { grace: None, ..options };
    let teardown = |jail| match jail {
        Jail::Created(created) => Created::teardown_with(created, rest),
        Jail::Running(running) => Running::teardown_with(running, rest),
        Jail::Exited(stopped) | Jail::Abandoned(stopped) => stopped.teardown_with(rest),
    };
    each(jails, teardown, on_progress)
}

fn running(jail: &Jail) -> Option<&Running> {
    if let Jail::Running(running) = jail { Some(running) } else { None }
}

/// Sends SIGTERM to all running VMMs, and waits until they have exited or the time is up.
fn ask_to_exit(jails: &mut [Jail], grace: Duration) {
    let deadline = Instant::now().checked_add(grace);
    for running in jails.iter().filter_map(running) {
        if let Ok(Some(Unheeded::Dropped)) = running.ask_to_exit() {
            // The teardown kills it once more, and then reports an error.
            let _ = running.kill();
        }
    }
    for jail in jails {
        if let Jail::Running(running) = jail {
            // After an error the VMM is killed.
            let _ = running.wait_until(deadline);
        }
    }
}

/// Does `work` on each item, on several at once, and returns the outcomes in the items' order.
///
/// # Arguments
/// `on_progress` is called after each item, from several threads.
pub(crate) fn each<T: Send, R: Send>(
    items: Vec<T>,
    work: impl Fn(T) -> R + Sync,
    on_progress: &(dyn Fn(Progress) + Sync),
) -> Vec<R> {
    let (done, total) = (AtomicU64::new(0), items.len() as u64);
    let work = |item| {
        let outcome = work(item);
        on_progress(Progress { done: done.fetch_add(1, Ordering::Relaxed) + 1, total });
        outcome
    };
    let helpers = items.len().min(MOST_AT_ONCE).saturating_sub(1);
    if helpers == 0 {
        return items.into_iter().map(work).collect();
    }
    let mut outcomes: Vec<Option<R>> = items.iter().map(|_| None).collect();
    let queue = Mutex::new(items.into_iter().zip(&mut outcomes));
    let take_turns = || {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((item, outcome)) = next else { return };
            *outcome = Some(work(item));
        }
    };
    thread::scope(|scope| {
        for _ in 0..helpers {
            // If a thread cannot be started, this one does more.
            let _ = thread::Builder::new().name("teardown".into()).spawn_scoped(scope, take_turns);
        }
        take_turns();
    });
    drop(queue);
    outcomes.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_in_the_order_of_the_items() {
        for many in [0, 1, 2, 100] {
            let doubled = each((0..many).collect(), |number: u32| number * 2, &|_| ());
            assert_eq!(doubled, (0..many).map(|number| number * 2).collect::<Vec<_>>());
        }
    }
}
