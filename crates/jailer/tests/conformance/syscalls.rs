//! How many system calls a start takes.

use std::fs;

use crate::ground::{conforms, ours_or_original, strace};

/// The most that a start may take; the original takes 106.
const MOST: usize = 90;

/// The system calls from the jailer's own exec to that of the VMM, neither of them counted.
pub(crate) fn before_exec(trace: &str) -> Vec<&str> {
    let calls = trace.lines().skip_while(|line| !line.starts_with("execve(")).skip(1);
    let calls = calls.take_while(|line| !line.starts_with("execve("));
    // A build with debug assertions asks whether each descriptor is open before it closes it.
    calls.filter(|line| !(cfg!(debug_assertions) && line.contains(", F_GETFD)"))).collect()
}

#[test]
fn a_start_with_no_optional_flag_takes_at_most_90() {
    conforms!(ground, {
        let trace = ground.guard.directory().join("trace");
        let options = ["-qq", "-o", trace.to_str().unwrap()];
        let Some(mut command) = strace(
            "syscalls::a_start_with_no_optional_flag_takes_at_most_90",
            &options,
            &ground.command(&[], &["exit=3"]),
        ) else {
            return;
        };
        assert_eq!(testkit::run_with(&mut command).code, 3);
        let text = fs::read_to_string(&trace).unwrap();
        let calls = before_exec(&text);
        testkit::tell(&format!("system calls before exec: {} (at most {MOST})", calls.len()));
        assert!(calls.len() > 20, "the trace is whole: {text}");
        assert!(calls.len() <= ours_or_original(MOST, usize::MAX), "{}", calls.join("\n"));
        let threads = calls.iter().filter(|line| line.starts_with("clone") || line.contains("fork("));
        assert_eq!(threads.count(), 0, "no thread and no child");
    });
}
