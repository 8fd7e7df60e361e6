//! A thousand jails, many in parallel: nothing is left, and nothing grows.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::atomic::{AtomicU32, Ordering};

use stockade::spec::JailSpec;
use stockade::{ExitStatus, Store, Streams};
use testkit::{privileged, program, tell, with_everything};

fn live(store: &Store, spec: &JailSpec) {
    let mut created = store.create(spec).unwrap();
    created.place("/etc/passwd").unwrap();
    let mut running = created.launch(Streams::default()).unwrap();
    assert_eq!(running.wait().unwrap(), ExitStatus::Exited(5));
    let report = running.teardown().unwrap();
    assert!(report.is_clean(), "{report:?}");
}

/// The number of this process's open file descriptors, and its resident memory in KiB.
fn size() -> (usize, u64) {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (descriptors, memory.trim().trim_end_matches(" kB").parse().unwrap())
}

#[test]
fn a_thousand_jails_leave_nothing_and_nothing_grows() {
    privileged!(guard, {
        let store = guard.store();
        let next = AtomicU32::new(0);
        let until = |end: u32| {
            std::thread::scope(|scope| {
                for _ in 0..50 {
                    scope.spawn(|| {
                        while let Some(number) = take(&next, end) {
                            live(&store, &with_everything(&guard, number));
                        }
                    });
                }
            });
            size()
        };
        let after_first = until(100);
        until(900);
        let after_last = until(1_000);
        assert!(!guard.base().exists() && !guard.state().exists());
        tell(&format!(
            "after the first hundred and the last: descriptors {} and {}, resident memory {} KiB and {} KiB",
            after_first.0, after_last.0, after_first.1, after_last.1
        ));
        assert_eq!(after_first.0, after_last.0, "descriptors");
        // The allocator keeps arenas of exited threads. A leak of one receipt per jail would show in megabytes.
        assert!(after_last.1 < after_first.1 + 4_096, "resident memory grew");
    });
}

/// The next number below `end`.
fn take(next: &AtomicU32, end: u32) -> Option<u32> {
    next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |number| (number < end).then_some(number + 1))
        .ok()
}

#[test]
fn two_hundred_jails_of_sixteen_processes_leave_nothing() {
    privileged!(guard, {
        let next = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    while let Some(number) = take(&next, 200) {
                        let output = testkit::run_with(
                            std::process::Command::new(program("stockade"))
                                .args(["run", "--id", &guard.named(&number.to_string()), "--new-pid-ns"])
                                .arg("--exec-file")
                                .arg(program("stockade-probe"))
                                .arg("--chroot-base-dir")
                                .arg(guard.base())
                                .arg("--state-dir")
                                .arg(guard.state())
                                .args(["--netns", &guard.named(&format!("net{number}")), "--", "exit=5"]),
                        );
                        assert_eq!((output.code, output.stderr.as_str()), (5, ""));
                    }
                });
            }
        });
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}
