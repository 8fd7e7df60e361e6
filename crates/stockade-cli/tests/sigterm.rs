//! VMMs that SIGTERM does not reach: `stop`, `rm --force --timeout` and the end of `run`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use testkit::{as_str, command, create_probe, privileged, probe_line, said, stockade};

const DROPPED: &str = "is the first process of its pid namespace and does not catch SIGTERM, so the kernel drops it; \
                       killing it now";

/// A grace period that no test waits for.
const GRACE: &str = "600";

/// Much less than the grace period.
const SOON: Duration = Duration::from_mins(2);

#[test]
fn stop_of_a_vmm_that_cannot_get_sigterm_kills_it_at_once() {
    privileged!(guard, {
        let ids = ["one", "two"].map(|id| create_probe(&guard, id, &["--new-pid-ns"]));
        for id in &ids {
            said(&guard, &["start", id, "--", "sleep"]);
        }
        let began = Instant::now();
        let stopped = stockade(&guard, &["stop", "--timeout", GRACE, &ids[0], &ids[1]]);
        assert!(began.elapsed() < SOON);
        assert_eq!(
            (stopped.code, stopped.stdout.as_str()),
            (0, format!("{}\n{}\n", ids[0], ids[1]).as_str())
        );
        for id in &ids {
            assert!(stopped.stderr.contains(&format!("the VMM of jail '{id}' {DROPPED}\n")), "{stopped:?}");
            assert_eq!(said(&guard, &["wait", id]), "137\n");
        }
        let removed = said(&guard, &["rm", &ids[0], &ids[1]]);
        assert_eq!(removed.lines().count(), 2);
        // `rm --force --timeout` asks in the same way.
        let id = create_probe(&guard, "rm", &["--new-pid-ns"]);
        said(&guard, &["start", &id, "--", "sleep"]);
        let removed = stockade(&guard, &["rm", "--force", "--timeout", GRACE, &id]);
        assert!(removed.code == 0 && removed.stderr.contains(DROPPED), "{removed:?}");
        assert!(began.elapsed() < SOON);
    });
}

#[test]
fn kill_names_a_vmm_that_cannot_get_sigterm() {
    privileged!(guard, {
        let id = create_probe(&guard, "vm", &["--new-pid-ns"]);
        said(&guard, &["start", &id, "--", "sleep"]);
        let sent = stockade(&guard, &["kill", "-s", "TERM", &id]);
        let line = format!(
            "stockade: the VMM of jail '{id}' is the first process of its pid namespace and does not catch SIGTERM, so \
             the kernel drops it; use `stop`, or `kill` without --signal\n"
        );
        assert_eq!((sent.code, sent.stderr.as_str()), (0, line.as_str()));
        let killed = stockade(&guard, &["kill", &id]);
        assert_eq!((killed.code, killed.stderr.as_str()), (0, ""));
        assert_eq!(said(&guard, &["wait", &id]), "137\n");
        said(&guard, &["rm", &id]);
    });
}

#[test]
fn run_of_a_vmm_that_cannot_get_sigterm_ends_at_the_first() {
    privileged!(guard, {
        let id = guard.named("front");
        let words = ["--new-pid-ns", "--grace", GRACE, "--", "clock", "sleep"];
        let mut child = command(&guard, &as_str(&probe_line(&guard, "run", &id, &words)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let began = Instant::now();
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        let ended = child.wait_with_output().unwrap();
        assert!(began.elapsed() < SOON);
        assert_eq!(ended.status.code(), Some(137));
        let text = String::from_utf8_lossy(&ended.stderr);
        assert!(text.contains(&format!("the VMM of jail '{id}' {DROPPED}\n")), "{text}");
    });
}

#[test]
fn stop_of_a_vmm_that_ignores_sigterm_names_the_wait() {
    privileged!(guard, {
        for flags in [&[][..], &["--new-pid-ns"]] {
            let id = create_probe(&guard, "deaf", flags);
            said(&guard, &["start", &id, "--", "ignore=15", "clock", "sleep"]);
            while stockade(&guard, &["logs", &id]).stdout.is_empty() {
                std::thread::yield_now();
            }
            let stopped = stockade(&guard, &["stop", "--timeout", "1", &id]);
            let line = format!(
                "stockade: the VMM of jail '{id}' ignores SIGTERM; it is killed after the grace period\n"
            );
            assert_eq!((stopped.code, stopped.stderr), (0, line));
            assert_eq!(said(&guard, &["wait", &id]), "137\n");
            said(&guard, &["rm", &id]);
        }
    });
}
