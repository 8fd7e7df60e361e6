//! The examples print the expected output, and leave nothing.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::Command;

use stockade::spec::DEFAULT_BASE;
use testkit::{Guard, privileged, program, run_with};

/// Runs an example, and returns its output.
fn run(guard: &Guard, name: &str) -> String {
    let base_existed = Path::new(DEFAULT_BASE).exists();
    let output = run_with(Command::new(program(name)).env("STOCKADE_STATE_DIR", guard.state()));
    assert_eq!(output.code, 0, "{output:?}");
    assert!(!guard.state().exists(), "the state directory was removed with the last jail");
    assert_eq!(Path::new(DEFAULT_BASE).exists(), base_existed, "the base was removed with the last jail");
    output.stdout
}

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn minimal() {
    privileged!(guard, {
        let output = run(&guard, "examples/minimal");
        contains(&output, &["uid=1234 gid=1234", "the VMM exited: exit code 0", " 0 left"]);
    });
}

#[test]
fn images() {
    privileged!(guard, {
        let output = run(&guard, "examples/images");
        contains(&output, &["/drives/passwd by ", "/drives/hosts by bind", "the VMM exited: exit code 0"]);
    });
}

#[test]
fn ten() {
    privileged!(guard, {
        contains(&run(&guard, "examples/ten"), &["10 of 10 exited with code 0"]);
    });
}

#[test]
fn take_over() {
    privileged!(guard, {
        let output = run(&guard, "examples/take_over");
        contains(&output, &["the launcher: signal: 9", "collected over-", " running\n", ": 0 objects left"]);
    });
}
