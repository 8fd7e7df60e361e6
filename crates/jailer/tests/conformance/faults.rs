//! Fault injection: each system call of a start fails once.

use std::fs;

use crate::fixture::{Fixture, conforms, drop_in_or_firecracker, processes_below, strace, wait_for};
use crate::syscalls::before_exec;

const ERRORS: [&str; 5] = ["EPERM", "ENOSPC", "EMFILE", "ENOMEM", "EINTR"];

/// Calls whose failure has no meaning. The kernel cannot refuse a query, the caller ignores the result (`close`,
/// `munmap`), or the C library's allocator has a fallback (`brk`, `mmap`).
const MEANINGLESS: [&str; 9] =
    ["getpid", "getsid", "clock_gettime", "close", "munmap", "brk", "mmap", "mremap", "exit_group"];

/// The minimum percentage of tried faults that are injected. Measured: 98 and more.
const LEAST_INJECTED: usize = 90;

/// The minimum percentage of injected faults that make the start fail. Calls are retried after EINTR, and some may fail
/// without harm. Measured: 77 in the foreground and 83 in the background.
const LEAST_FAILED: usize = 60;

/// A system call of a start.
struct Point {
    name: String,
    /// Its number among the calls of that name, as in strace's `when`.
    when: usize,
}

/// The jailer's own calls: from the poll of the standard streams, the first after the C library's start, up to and
/// including the exec of the VMM.
fn points(trace: &str) -> Vec<Point> {
    let calls = before_exec(trace);
    let started = calls.iter().take_while(|line| !line.contains("poll(")).count();
    let mut names = vec!["execve"];
    names.extend(calls.iter().filter_map(|line| line.split('(').next()));
    names.push("execve");
    let mut points = Vec::new();
    for (index, name) in names.iter().enumerate().skip(1 + started) {
        if !MEANINGLESS.contains(name) {
            let when = names[..=index].iter().filter(|other| *other == name).count();
            points.push(Point { name: (*name).to_owned(), when });
        }
    }
    points
}

/// The calls of all processes from the first fork on, counted within each process. If the first process makes a call of
/// the same name and number before its fork, the fault hits that call instead.
fn points_from_the_first_fork(trace: &str) -> Vec<Point> {
    // Each line begins with a pid. The second part of an interrupted call is skipped.
    let calls =
        trace.lines().filter_map(|line| line.split_once(' ').map(|(pid, call)| (pid, call.trim_start())));
    let calls: Vec<_> = calls.filter(|(_, call)| !call.starts_with(['<', '+', '-'])).collect();
    let name = |call: &str| call.split('(').next().unwrap_or_default().to_owned();
    let fork = calls.iter().position(|(_, call)| call.starts_with("clone3")).unwrap();
    let mut points: Vec<Point> = Vec::new();
    let mut executed = Vec::new();
    for (index, (pid, call)) in calls.iter().enumerate().skip(fork) {
        let name = name(call);
        // strace counts per process and injects into every process. A fault in `execve` would hit the jailer's own exec
        // (daemonize.rs has a VMM that cannot be executed), one in `write` the message.
        if name == "write" || name == "execve" {
            executed.extend((name == "execve").then_some(*pid));
            continue;
        }
        if executed.contains(pid) || MEANINGLESS.contains(&name.as_str()) || call.contains(", F_GETFD)") {
            continue;
        }
        let of_process = calls[..=index].iter().filter(|(other, _)| other == pid);
        let when = of_process.filter(|(_, other)| other.starts_with(&format!("{name}("))).count();
        if !points.iter().any(|point| point.name == name && point.when == when) {
            points.push(Point { name, when });
        }
    }
    points
}

/// The outcome of a start with a fault.
struct Outcome {
    /// Whether strace injected the fault.
    was_injected: bool,
    /// Whether the start failed.
    failed: bool,
}

/// Starts a jail with an injected fault. Then a second start must succeed.
fn start_with(fixture: &Fixture<'_>, flags: &[&str], options: &[&str], fault: &str) -> Outcome {
    let _ = fs::remove_dir_all(fixture.exec_dir());
    let name = fault.split([':', '=']).nth(1).unwrap();
    let trace = format!("trace={name}");
    let file = fixture.guard.directory().join("trace");
    let to_file = ["-qq", "-o", file.to_str().unwrap(), "-e", &trace, "-e", fault];
    let command = fixture.command(flags, &["exit=3"]);
    let output = testkit::run_with(
        &mut strace("faults::any_single_call_…_may_fail", &[options, &to_file].concat(), &command).unwrap(),
    );
    // In the background the exit code is the jailer's, not the VMM's.
    let done = if flags.is_empty() { 3 } else { 0 };
    if output.code != done {
        assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{fault}: {output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{fault}: {output:?}");
        assert!(output.stderr.len() > 20, "{fault}: {output:?}");
    }
    wait_for("the end of the VMM", || processes_below(&fixture.base).is_empty().then_some(()));
    let again = fixture.run(&[], &["exit=3"]);
    assert_eq!((again.code, again.stderr.as_str()), (3, ""), "after {fault}: {again:?}");
    let was_injected = fs::read_to_string(&file).unwrap().contains("(INJECTED)");
    let failed = output.code != done;
    assert!(was_injected || !failed, "failed without a fault: {fault}: {output:?}");
    Outcome { was_injected, failed }
}

/// The trace of a successful start.
fn trace(fixture: &Fixture<'_>, flags: &[&str], options: &[&str]) -> Option<String> {
    let file = fixture.guard.directory().join("trace");
    let to_file = ["-qq", "-o", file.to_str().unwrap()];
    let command = fixture.command(flags, &["exit=3"]);
    let mut command = strace("faults::any_single_call_…_may_fail", &[options, &to_file].concat(), &command)?;
    assert_eq!(testkit::run_with(&mut command).code, if flags.is_empty() { 3 } else { 0 });
    Some(fs::read_to_string(&file).unwrap())
}

fn try_all(fixture: &Fixture<'_>, what: &str, flags: &[&str], options: &[&str], points: &[Point]) {
    assert!(points.len() > 15, "the trace is complete");
    let faults = points.iter().flat_map(|Point { name, when }| {
        ERRORS.map(|error| format!("inject={name}:error={error}:when={when}"))
    });
    let outcomes: Vec<Outcome> = faults.map(|fault| start_with(fixture, flags, options, &fault)).collect();
    let (tried, calls) = (outcomes.len(), points.len());
    let injected = outcomes.iter().filter(|outcome| outcome.was_injected).count();
    let failed = outcomes.iter().filter(|outcome| outcome.failed).count();
    let counts = format!(
        "faults tried {what}: {tried}, of {calls} calls; {injected} of them injected, {failed} starts failed"
    );
    testkit::tell(&counts);
    assert!(injected * 100 >= tried * LEAST_INJECTED, "too few injected: {counts}");
    assert!(failed * 100 >= injected * LEAST_FAILED, "too few had an effect: {counts}");
}

#[test]
fn any_single_call_may_fail() {
    conforms!(fixture, {
        if !drop_in_or_firecracker(true, false) {
            return;
        }
        let Some(text) = trace(&fixture, &[], &[]) else { return };
        try_all(&fixture, "in the foreground", &[], &[], &points(&text));
    });
}

#[test]
fn any_single_call_of_a_daemon_may_fail() {
    conforms!(fixture, {
        if !drop_in_or_firecracker(true, false) {
            return;
        }
        let flags = ["--daemonize", "--new-pid-ns", "--resource-limit", "fsize=100000000"];
        let follow = ["-f"];
        let Some(text) = trace(&fixture, &flags, &follow) else { return };
        try_all(&fixture, "in the background", &flags, &follow, &points_from_the_first_fork(&text));
    });
}
