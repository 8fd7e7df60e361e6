//! VMMs awaited in an event loop: one thread for all of them, and none created by the library.
#![allow(clippy::unwrap_used, missing_docs)]

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use stockade::{EventKind, Events, ExitStatus, Running, Streams};
use testkit::{Guard, privileged, probe_spec};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// Longer than any expected event takes. Events that come too early fail by their order.
const LONG: Duration = Duration::from_mins(1);

fn launch(guard: &Guard, id: &str, arguments: &[&str], monitor: bool) -> Running {
    let created = guard.store().create(&probe_spec(guard, id, arguments)).unwrap();
    if monitor { created.launch_monitored(1 << 12) } else { created.launch(Streams::default()) }.unwrap()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[expect(
    deprecated,
    reason = "its successor is unsafe; a borrowed file descriptor outlives its registration"
)]
async fn readable(fd: BorrowedFd<'_>) {
    let registered = AsyncFd::with_interest(fd, Interest::READABLE).unwrap();
    let _ready = registered.readable().await.unwrap();
}

/// The loop in the documentation of `waits_at`.
async fn exit_of(running: &mut Running) -> ExitStatus {
    while let Some(fd) = running.waits_at().unwrap() {
        readable(fd).await;
    }
    running.wait().unwrap()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn fifty_vmms_are_awaited_by_one_thread() {
    privileged!(guard, {
        let launch = |n: i32| {
            let arguments = [&format!("sleep-ms={}", 5 * (n % 7)), &*format!("exit={n}")];
            launch(&guard, &format!("vm{n}"), &arguments, n % 2 == 0)
        };
        let running: Vec<Running> = (0..50).map(launch).collect();
        let before = threads();
        runtime().block_on(tokio::task::LocalSet::new().run_until(async {
            let awaited: Vec<_> = running
                .into_iter()
                .map(|mut running| {
                    tokio::task::spawn_local(async move {
                        (timeout(LONG, exit_of(&mut running)).await.unwrap(), running)
                    })
                })
                .collect();
            for (n, task) in (0..).zip(awaited) {
                let (how, running) = task.await.unwrap();
                assert_eq!((how, threads()), (ExitStatus::Exited(n), before));
                assert!(running.teardown().unwrap().is_clean());
            }
        }));
    });
}

#[test]
fn a_cancelled_wait_has_no_effect() {
    privileged!(guard, {
        for monitor in [false, true] {
            let mut running = launch(&guard, "vm", &["sleep"], monitor);
            runtime().block_on(async {
                for _ in 0..3 {
                    timeout(Duration::from_millis(20), exit_of(&mut running)).await.expect_err("it sleeps");
                }
                running.signal(rustix::process::Signal::TERM).unwrap();
                assert_eq!(timeout(LONG, exit_of(&mut running)).await.unwrap(), ExitStatus::Killed(15));
            });
            assert!(running.teardown().unwrap().is_clean());
        }
    });
}

async fn next(events: &mut Events) -> EventKind {
    loop {
        if let Some(event) = events.next(Some(Instant::now())).unwrap() {
            return event.kind;
        }
        readable(events.as_fd()).await;
    }
}

#[test]
fn events_are_awaited_in_parallel_to_their_vmm() {
    privileged!(guard, {
        let mut events = guard.store().events().unwrap();
        runtime().block_on(async {
            timeout(Duration::from_millis(20), next(&mut events)).await.expect_err("nothing happens");
            let mut running = launch(&guard, "vm", &["sleep-ms=50", "exit=3"], true);
            let pid = running.pid();
            let three = async { [next(&mut events).await, next(&mut events).await, next(&mut events).await] };
            let (three, how) =
                timeout(LONG, async { tokio::join!(three, exit_of(&mut running)) }).await.unwrap();
            assert_eq!(how, ExitStatus::Exited(3));
            assert_eq!(three, [EventKind::Created, EventKind::Started { pid }, EventKind::Exited { how }]);
            assert!(running.teardown().unwrap().is_clean());
            assert_eq!(timeout(LONG, next(&mut events)).await.unwrap(), EventKind::Removed);
        });
    });
}
