//! The guest of demo, audit and tests: a program that runs inside a jail and reports what it sees there,
//! tries to get out, and runs a tiny KVM guest.
//!
//! It expects nothing of its surroundings: no `/proc`, no `/dev/null`, no environment, no privileges. What it
//! cannot read it reports as unknown, with the reason.

mod actions;
mod attack;
mod capabilities;
mod devices;
mod errno;
mod escapes;
mod known;
mod mounts;
mod odd;
mod report;
mod writable;

pub use attack::foreign_interpreter;

use actions::{Actions, Next};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

/// Carries out the actions that `words` name, one after the other; the program's own name is not among them.
///
/// A word that begins with `--` is skipped with the word after it: a jailer passes such to every program. A
/// `--` alone is skipped alone. A word that names no action ends the run with exit code 2.
///
/// As the first word, `odd` is followed by a program and its arguments, which is executed in a state in which
/// everything that a process inherits is unusual.
#[must_use]
pub fn run(words: &[OsString]) -> ExitCode {
    if let [first, program @ ..] = words
        && first == "odd"
    {
        return odd::execute(program);
    }
    let mut actions = Actions::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            continue;
        }
        if word.as_bytes().starts_with(b"--") {
            words.next();
            continue;
        }
        match actions.carry_out(word) {
            Next::GoOn => {}
            Next::Leave(code) => return code,
        }
    }
    ExitCode::SUCCESS
}
