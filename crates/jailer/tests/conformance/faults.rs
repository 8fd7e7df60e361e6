//! Every system call of a start, failing once.

use std::fs;

use crate::ground::{Ground, conforms, ours_or_original, processes_below, strace, wait_for};
use crate::syscalls::before_exec;

const ERRORS: [&str; 5] = ["EPERM", "ENOSPC", "EMFILE", "ENOMEM", "EINTR"];

/// Calls whose failure means nothing: the kernel cannot refuse them (they only ask), the caller learns nothing
/// of it (`close`, `munmap`), or, of the C library's allocator, has another way (`brk`, `mmap`).
const MEANINGLESS: [&str; 9] =
    ["getpid", "getsid", "clock_gettime", "close", "munmap", "brk", "mmap", "mremap", "exit_group"];

/// Of a hundred faults that are tried, at least so many are injected. Measured are 98 and more.
const LEAST_INJECTED: usize = 90;

/// Of a hundred faults that are injected, at least so many make the start fail: EINTR is tried again, and some calls
/// may fail without harm. Measured are 77 in the foreground and 83 in the background.
const LEAST_FAILED: usize = 60;

/// One call of a start: its name, and which of that name it is, as `strace` counts.
struct Point {
    name: String,
    when: usize,
}

/// The calls that the jailer makes of its own: from the first behind the C library's start, which looks at
/// the standard streams, to the exec of the VMM, that included.
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

/// The calls of all processes from the first fork on, each counted within its process. One that comes as
/// early in the first process fails there already, which is then all that is learnt.
fn points_from_the_first_fork(trace: &str) -> Vec<Point> {
    // Each line begins with the number of its process; one that another interrupted has been seen before.
    let calls =
        trace.lines().filter_map(|line| line.split_once(' ').map(|(pid, call)| (pid, call.trim_start())));
    let calls: Vec<_> = calls.filter(|(_, call)| !call.starts_with(['<', '+', '-'])).collect();
    let name = |call: &str| call.split('(').next().unwrap_or_default().to_owned();
    let fork = calls.iter().position(|(_, call)| call.starts_with("clone3")).unwrap();
    let mut points: Vec<Point> = Vec::new();
    let mut executed = Vec::new();
    for (index, (pid, call)) in calls.iter().enumerate().skip(fork) {
        let name = name(call);
        // `strace` counts in each process and makes the call fail in every one: `execve` would be that of the
        // jailer itself (daemonize.rs has a VMM that cannot be executed), `write` that of the message.
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

/// A start with a fault.
struct Outcome {
    /// Whether `strace` has made a system call fail.
    was_injected: bool,
    /// Whether the jailer has failed.
    failed: bool,
}

/// Starts a jail with `fault` injected, and a second one after it.
fn start_with(ground: &Ground<'_>, flags: &[&str], options: &[&str], fault: &str) -> Outcome {
    let _ = fs::remove_dir_all(ground.exec_dir());
    let name = fault.split([':', '=']).nth(1).unwrap();
    let trace = format!("trace={name}");
    let file = ground.guard.directory().join("trace");
    let to_file = ["-qq", "-o", file.to_str().unwrap(), "-e", &trace, "-e", fault];
    let command = ground.command(flags, &["exit=3"]);
    let output = testkit::run_with(
        &mut strace("faults::any_single_call_…_may_fail", &[options, &to_file].concat(), &command).unwrap(),
    );
    // The end of a VMM in the background is not the jailer's.
    let done = if flags.is_empty() { 3 } else { 0 };
    if output.code != done {
        assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{fault}: {output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{fault}: {output:?}");
        assert!(output.stderr.len() > 20, "{fault}: {output:?}");
    }
    wait_for("the end of the VMM", || processes_below(&ground.base).is_empty().then_some(()));
    let again = ground.run(&[], &["exit=3"]);
    assert_eq!((again.code, again.stderr.as_str()), (3, ""), "after {fault}: {again:?}");
    let was_injected = fs::read_to_string(&file).unwrap().contains("(INJECTED)");
    let failed = output.code != done;
    assert!(was_injected || !failed, "it failed without a fault: {fault}: {output:?}");
    Outcome { was_injected, failed }
}

/// The whole trace of a start that goes well.
fn trace(ground: &Ground<'_>, flags: &[&str], options: &[&str]) -> Option<String> {
    let file = ground.guard.directory().join("trace");
    let to_file = ["-qq", "-o", file.to_str().unwrap()];
    let command = ground.command(flags, &["exit=3"]);
    let mut command = strace("faults::any_single_call_…_may_fail", &[options, &to_file].concat(), &command)?;
    assert_eq!(testkit::run_with(&mut command).code, if flags.is_empty() { 3 } else { 0 });
    Some(fs::read_to_string(&file).unwrap())
}

fn try_all(ground: &Ground<'_>, what: &str, flags: &[&str], options: &[&str], points: &[Point]) {
    assert!(points.len() > 15, "the trace is whole");
    let faults = points.iter().flat_map(|Point { name, when }| {
        ERRORS.map(|error| format!("inject={name}:error={error}:when={when}"))
    });
    let outcomes: Vec<Outcome> = faults.map(|fault| start_with(ground, flags, options, &fault)).collect();
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
    conforms!(ground, {
        if !ours_or_original(true, false) {
            return;
        }
        let Some(text) = trace(&ground, &[], &[]) else { return };
        try_all(&ground, "in the foreground", &[], &[], &points(&text));
    });
}

#[test]
fn any_single_call_of_a_daemon_may_fail() {
    conforms!(ground, {
        if !ours_or_original(true, false) {
            return;
        }
        let flags = ["--daemonize", "--new-pid-ns", "--resource-limit", "fsize=100000000"];
        let follow = ["-f"];
        let Some(text) = trace(&ground, &flags, &follow) else { return };
        try_all(&ground, "in the background", &flags, &follow, &points_from_the_first_fork(&text));
    });
}
