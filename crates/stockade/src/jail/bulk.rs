//! Many jails removed at once: what each has to wait for is waited for together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::error::Result;
use crate::jail::create::Created;
use crate::jail::open::Jail;
use crate::jail::running::Running;
use crate::jail::teardown::{Report, TeardownOptions};
use crate::sys::Progress;

/// How many jails are worked on at once. Most of a teardown is waiting, for a process to end or for the kernel to
/// be sure that nobody looks at a mount any more, and those who wait at the same time wait for the same.
const MOST_AT_ONCE: usize = 8;

/// Removes jails: asks all VMMs that run to end, if a grace period is given, which they share; kills those that
/// have not; and then removes what is left of each. Each has its report, in the order given.
///
/// Every jail holds some descriptors while it waits for its turn: whoever has thousands gives them by the hundred.
pub fn teardown_all(jails: Vec<Jail>, options: TeardownOptions) -> Vec<Result<Report>> {
    teardown_all_with_progress(jails, options, &|_| ())
}

/// The same, telling how many of them have been seen to, from several threads.
pub fn teardown_all_with_progress(
    mut jails: Vec<Jail>,
    options: TeardownOptions,
    on_progress: &(dyn Fn(Progress) + Sync),
) -> Vec<Result<Report>> {
    if let Some(grace) = options.grace {
        ask_to_exit(&mut jails, grace);
    }
    for running in jails.iter().filter_map(running) {
        // It is killed once more when its turn comes, and then what is wrong is told.
        let _ = running.signal(Signal::KILL);
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

/// Returns once all have ended, or the time is over.
fn ask_to_exit(jails: &mut [Jail], grace: Duration) {
    let deadline = Instant::now().checked_add(grace);
    for running in jails.iter().filter_map(running) {
        let _ = running.signal(Signal::TERM);
    }
    for jail in jails {
        if let Jail::Running(running) = jail {
            // One that cannot be waited for is killed.
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
            // Without a helper this thread has the more to do.
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
    fn outcomes_come_in_the_order_of_what_was_given() {
        for many in [0, 1, 2, 100] {
            let doubled = each((0..many).collect(), |number: u32| number * 2, &|_| ());
            assert_eq!(doubled, (0..many).map(|number| number * 2).collect::<Vec<_>>());
        }
    }
}
