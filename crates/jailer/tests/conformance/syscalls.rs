//! The number of system calls of a start.

use std::fs;

use crate::fixture::{conforms, drop_in_or_firecracker, strace};

/// The maximum for a start; Firecracker's jailer makes 106.
const MOST: usize = 90;

/// The system calls between the jailer's own exec and that of the VMM.
pub(crate) fn before_exec(trace: &str) -> Vec<&str> {
    let calls = trace.lines().skip_while(|line| !line.starts_with("execve(")).skip(1);
    let calls = calls.take_while(|line| !line.starts_with("execve("));
    // A build with debug assertions calls fcntl(F_GETFD) before it closes a file descriptor.
    calls.filter(|line| !(cfg!(debug_assertions) && line.contains(", F_GETFD)"))).collect()
}

#[test]
fn a_start_with_no_optional_flag_takes_at_most_90() {
    conforms!(fixture, {
        let trace = fixture.guard.directory().join("trace");
        let options = ["-qq", "-o", trace.to_str().unwrap()];
        let Some(mut command) = strace(
            "syscalls::a_start_with_no_optional_flag_takes_at_most_90",
            &options,
            &fixture.command(&[], &["exit=3"]),
        ) else {
            return;
        };
        assert_eq!(testkit::run_with(&mut command).code, 3);
        let text = fs::read_to_string(&trace).unwrap();
        let calls = before_exec(&text);
        testkit::tell(&format!("system calls before exec: {} (at most {MOST})", calls.len()));
        assert!(calls.len() > 20, "the trace is complete: {text}");
        assert!(calls.len() <= drop_in_or_firecracker(MOST, usize::MAX), "{}", calls.join("\n"));
        let threads = calls.iter().filter(|line| line.starts_with("clone") || line.contains("fork("));
        assert_eq!(threads.count(), 0, "no thread and no child");
    });
}
