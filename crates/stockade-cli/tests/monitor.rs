//! The monitor is killed at any moment: the jail's state is shown correctly, its VMM is never lost, and `rm` removes it.
#![allow(clippy::unwrap_used, missing_docs)]

mod injection;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use injection::{create, leftovers, wait_for_orphans};
use rustix::process::{Pid, Signal, kill_process};
use testkit::{Guard, privileged, program, run_with, stockade, tell};

/// The state of the jail in `ps`.
fn state(guard: &Guard) -> String {
    let ps = stockade(guard, &["ps"]);
    assert_eq!((ps.code, ps.stderr.as_str()), (0, ""));
    let id = guard.named("jail");
    let row = ps.stdout.lines().find(|line| line.starts_with(&id)).unwrap_or_default().to_owned();
    row.split_whitespace().nth(2).unwrap_or("gone").to_owned()
}

/// The pid in the receipt, if the VMM runs.
fn vmm(guard: &Guard) -> Option<String> {
    let receipt = std::fs::read(guard.state().join(guard.named("jail")).join("receipt.json")).unwrap();
    let receipt: serde_json::Value = serde_json::from_slice(&receipt).unwrap();
    let vmm = receipt["steps"].as_array().unwrap().iter().find(|step| step["kind"] == "vmm")?;
    let pid = vmm["process"]["pid"].to_string();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    (!stat.contains(") Z ")).then_some(pid)
}

/// Checks a jail after its monitor was killed, and removes it. Returns the state that was shown.
fn is_truthful_and_removable(guard: &Guard, at: &str) -> String {
    let (shown, id) = (state(guard), guard.named("jail"));
    match shown.as_str() {
        "running" => assert!(vmm(guard).is_some(), "{at}: nothing runs"),
        "created" | "exited" => assert_eq!(vmm(guard), None, "{at}: {shown}, but it runs"),
        other => panic!("{at}: shown as {other}"),
    }
    if shown == "exited" {
        let wait = stockade(guard, &["wait", &id]);
        let unknown =
            format!("stockade: jail '{id}' is not running, and the exit status of its VMM is unknown\n");
        assert!(wait.stdout == "3\n" || (wait.code, wait.stderr) == (1, unknown), "{at}: {}", wait.stdout);
    }
    let rm = stockade(guard, &["rm", "--force", &id]);
    assert_eq!((rm.code, rm.stderr.as_str()), (0, ""), "{at}");
    wait_for_orphans();
    let left = leftovers(guard);
    assert!(left.is_empty(), "{at}: left {left:?}");
    shown
}

/// The only child of a process, if it has one.
fn child_of(pid: u32) -> Option<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}

#[test]
fn a_monitor_killed_at_any_time_leaves_a_removable_jail() {
    privileged!(guard, {
        let (mut killed, mut shown) = (0, std::collections::BTreeMap::<String, u32>::new());
        for round in 0..150 {
            create(&guard);
            let mut start = Command::new(program("stockade"));
            start
                .args(["start", &guard.named("jail"), "--", "sleep"])
                .env("STOCKADE_STATE_DIR", guard.state());
            let start = start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut start = start.spawn().unwrap();
            let monitor = loop {
                if let Some(monitor) = child_of(start.id()) {
                    break Some(monitor);
                }
                if start.try_wait().unwrap().is_some() {
                    break None;
                }
            };
            // Later in each round: from before its first system call to its wait for the VMM.
            let moment = Instant::now() + Duration::from_micros(round * 20);
            while Instant::now() < moment {
                std::hint::spin_loop();
            }
            if let Some(monitor) = monitor {
                // No other process reaps it while its parent lives or is this process.
                let _ = kill_process(monitor, Signal::KILL);
                killed += 1;
            }
            let code = start.wait().unwrap().code();
            let at = format!("killed {} us after its birth", round * 20);
            let state = is_truthful_and_removable(&guard, &at);
            assert!(
                code == Some(0) || (code, state.as_str()) == (Some(1), "created"),
                "{at}: {code:?} {state}"
            );
            *shown.entry(state).or_default() += 1;
        }
        tell(&format!("{killed} monitors killed at the start; shown as {shown:?}"));
        assert!(killed > 75 && shown.len() > 1, "the kills missed: {killed}, {shown:?}");
    });
}

#[test]
fn a_monitor_killed_at_any_syscall_leaves_a_removable_jail() {
    privileged!(guard, {
        // Calls that only the monitor makes, or that are traced only for files that it writes. In the order of its
        // life: the message to the launcher, its own program, its wait, its log, the VMM's exit.
        let moments: &[(&str, u32, Option<&str>)] = &[
            ("sendmsg", 1, None),
            ("execveat", 1, None),
            ("openat", 1, Some("log")),
            ("openat", 1, Some("ended.new")),
            ("pwrite64", 1, Some("ended.new")),
            ("renameat", 1, Some("ended.new")),
        ];
        let mut said = Vec::new();
        for (call, number, path) in moments {
            create(&guard);
            let id = guard.named("jail");
            let mut strace = Command::new("strace");
            strace
                .args(["-f", "-q", "-o"])
                .arg(guard.directory().join("trace"))
                .args(["-e", &format!("trace={call}")]);
            strace.args(["-e", &format!("inject={call}:signal=KILL:when={number}")]);
            if let Some(path) = path {
                let place = guard.state().join(&id).join(path);
                strace.args(["-P", path, "-P", &place.display().to_string()]);
            }
            strace.arg(program("stockade")).args(["start", &id, "--", "clock", "sleep-ms=30", "exit=3"]);
            // strace exits after the VMM.
            let output = run_with(strace.env("STOCKADE_STATE_DIR", guard.state()));
            let trace = std::fs::read_to_string(guard.directory().join("trace")).unwrap();
            let killed = trace.lines().filter(|line| line.contains("killed by SIGKILL")).count();
            assert!(killed == 1 && output.code != 137, "{call}: the monitor alone is killed: {trace}");
            let at = format!("{call} number {number} {}", path.unwrap_or_default());
            said.push(format!("{}: {}", at.trim(), is_truthful_and_removable(&guard, &at)));
        }
        tell(&format!("monitors killed at {}", said.join(", ")));
    });
}
