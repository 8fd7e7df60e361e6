//! The examples do what they say, and leave nothing.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::Command;

use stockade::spec::DEFAULT_BASE;
use testkit::{Guard, privileged, program, run_with};

/// Runs an example; what it printed.
fn run(guard: &Guard, name: &str) -> String {
    let base_was_there = Path::new(DEFAULT_BASE).exists();
    let output = run_with(Command::new(program(name)).env("STOCKADE_STATE_DIR", guard.state()));
    assert_eq!(output.code, 0, "{output:?}");
    assert!(!guard.state().exists(), "the state directory went with the last jail");
    assert_eq!(Path::new(DEFAULT_BASE).exists(), base_was_there, "and so did the base");
    output.stdout
}

fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[test]
fn minimal() {
    privileged!(guard, {
        let said = run(&guard, "examples/minimal");
        says(&said, &["uid=1234 gid=1234", "it ended: exit code 0", " 0 left"]);
    });
}

#[test]
fn images() {
    privileged!(guard, {
        let said = run(&guard, "examples/images");
        says(&said, &["/drives/passwd by ", "/drives/hosts by bind", "it ended: exit code 0"]);
    });
}

#[test]
fn ten() {
    privileged!(guard, {
        says(&run(&guard, "examples/ten"), &["10 of 10 ended well"]);
    });
}

#[test]
fn take_over() {
    privileged!(guard, {
        let said = run(&guard, "examples/take_over");
        says(&said, &["the launcher: signal: 9", "collected over-", " running\n", ": 0 things left"]);
    });
}
