//! Every system call of a start, failing once.

use std::fs;
use std::process::Command;

use crate::ground::{Ground, conforms, ours_or_original, strace};
use crate::syscalls::before_exec;

const ERRORS: [&str; 5] = ["EPERM", "ENOSPC", "EMFILE", "ENOMEM", "EINTR"];

/// Calls whose failure means nothing: the kernel cannot refuse them (they only ask), the caller learns nothing
/// of it (`close`, `munmap`), or, of the C library's allocator, has another way (`brk`, `mmap`).
const MEANINGLESS: [&str; 9] =
    ["getpid", "getsid", "clock_gettime", "close", "munmap", "brk", "mmap", "mremap", "exit_group"];

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

fn trace_of(ground: &Ground<'_>, options: &[&str], flags: &[&str]) -> Option<Command> {
    strace("faults", options, &ground.command(flags, &["exit=3"]))
}

#[test]
fn any_single_call_may_fail() {
    conforms!(ground, {
        if !ours_or_original(true, false) {
            return;
        }
        let trace = ground.guard.directory().join("trace");
        let to_trace = ["-qq", "-o", trace.to_str().unwrap()];
        let Some(mut command) = trace_of(&ground, &to_trace, &[]) else { return };
        assert_eq!(testkit::run_with(&mut command).code, 3);
        let points = points(&fs::read_to_string(&trace).unwrap());
        assert!(points.len() > 30, "the trace is whole");
        let (mut tried, mut survived) = (0, 0);
        for Point { name, when } in &points {
            for error in ERRORS {
                let _ = fs::remove_dir_all(ground.exec_dir());
                let fault = format!("inject={name}:error={error}:when={when}");
                let options = ["-qq", "-o", "/dev/null", "-e", &format!("trace={name}"), "-e", &fault];
                let output = testkit::run_with(&mut trace_of(&ground, &options, &[]).unwrap());
                tried += 1;
                if output.code == 3 {
                    survived += 1;
                } else {
                    assert_eq!(output.code, 1, "{fault}: {output:?}");
                    assert_eq!(output.stderr.lines().count(), 1, "{fault}: {output:?}");
                    assert!(output.stderr.len() > 20, "{fault}: {output:?}");
                    assert_eq!(output.stdout, "", "{fault}: {output:?}");
                }
                let again = ground.run(&[], &["exit=3"]);
                assert_eq!((again.code, again.stderr.as_str()), (3, ""), "after {fault}: {again:?}");
            }
        }
        eprintln!("faults tried: {tried}, of {} calls; {survived} made no difference", points.len());
    });
}
