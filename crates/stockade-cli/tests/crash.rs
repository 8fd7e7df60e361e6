//! Killed at any system call, `stockade run` leaves nothing that `stockade gc` does not find.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use testkit::{Guard, Output, privileged, program, run_with};

/// A run with everything that a jail can have, under strace with further options.
fn traced(guard: &Guard, options: &[&str]) -> Output {
    let mut command = Command::new("strace");
    command.args(["-qq", "-o"]).arg(guard.directory().join("trace")).args(options).arg(program("stockade"));
    command.args(["run", "--id", &guard.named("jail"), "--exec-file"]).arg(program("stockade-probe"));
    command.arg("--chroot-base-dir").arg(guard.base()).arg("--state-dir").arg(guard.state());
    command.args(["--netns", &guard.named("net"), "--ramfs", "1M", "--place", "/etc/passwd"]);
    command.args(["--cgroup", "pids.max=9", "--parent-cgroup", guard.name(), "--", "exit=0"]);
    run_with(command.stderr(Stdio::null()))
}

/// Every system call of such a run, each with its number among those of its name.
fn calls(guard: &Guard) -> Vec<(String, usize)> {
    assert_eq!(traced(guard, &[]).code, 0, "is strace installed?");
    let trace = std::fs::read_to_string(guard.directory().join("trace")).unwrap();
    let mut counts = BTreeMap::new();
    let names = trace.lines().filter_map(|line| Some(line.split_once('(')?.0.to_owned()));
    let named = names.filter(|name| {
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    });
    named
        .map(|name| {
            let count = counts.entry(name.clone()).or_insert(0);
            *count += 1;
            (name, *count)
        })
        .collect()
}

/// Waits for everything that the killed run had started: orphans come to this process.
fn wait_for_orphans() {
    while !matches!(waitid(WaitId::All, WaitIdOptions::EXITED), Err(Errno::CHILD)) {}
}

fn leftovers(guard: &Guard) -> Vec<&'static str> {
    let there = |path: &Path| path.symlink_metadata().is_ok();
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let unnamed = std::fs::read_dir(guard.directory()).unwrap().flatten();
    let unnamed =
        unnamed.filter(|entry| entry.file_name().to_string_lossy().starts_with(".stockade")).count();
    let checks = [
        ("the base", there(&guard.base())),
        ("the state directory", there(&guard.state())),
        ("a directory without a name", unnamed > 0),
        ("the network namespace", there(&Path::new("/run/netns").join(guard.named("net")))),
        ("a mount", mounts.contains(guard.name())),
        ("the cgroup", there(&Path::new("/sys/fs/cgroup/pids").join(guard.name()).join(guard.named("jail")))),
    ];
    checks.into_iter().filter(|(_, left)| *left).map(|(what, _)| what).collect()
}

#[test]
fn a_run_killed_at_any_system_call_is_cleared_away_by_gc() {
    privileged!(guard, {
        let calls = calls(&guard);
        let mut killed = 0;
        for (name, number) in &calls {
            let output = traced(&guard, &["-e", &format!("inject={name}:signal=KILL:when={number}")]);
            killed += usize::from(output.code == 137);
            wait_for_orphans();
            let mut gc = Command::new(program("stockade"));
            let gc = run_with(gc.arg("gc").env("STOCKADE_STATE_DIR", guard.state()));
            assert_eq!((gc.code, gc.stderr.as_str()), (0, ""), "killed at {name} number {number}: {gc:?}");
            let left = leftovers(&guard);
            assert!(left.is_empty(), "killed at {name} number {number}: left {left:?}; gc: {}", gc.stdout);
        }
        eprintln!("killed at {killed} of {} system calls", calls.len());
        // Calls that the timing decides about, such as polls, may not come up again.
        assert!(killed * 10 >= calls.len() * 9, "only {killed} of {} runs were killed", calls.len());
    });
}
