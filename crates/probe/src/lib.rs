//! The probe of `demo`, `audit` and the tests: a program that inspects a jail from inside, attempts to escape, and
//! runs a small KVM guest.
//!
//! The probe needs no `/proc`, no `/dev/null`, no environment and no privileges. It reports inaccessible facts as
//! unknown, with the reason.

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

/// Runs the actions in `arguments`, which do not include the program's name, in order.
///
/// An argument that begins with `--` is skipped together with its value: a jailer passes such flags to every program.
/// A plain `--` is skipped alone. An unknown action ends the run with exit code 2.
///
/// If the first argument is `odd`, the others are a program and its arguments. The probe executes that program with
/// unusual values of all inherited attributes. If it is `without=OPERATIONS`, the program runs under a seccomp filter that
/// forbids these operations: `mount`, `unshare`, `setns`, `mknod` and `pivot_root`, separated by commas. A `!` behind a
/// name kills the process at the call.
#[must_use]
pub fn run(arguments: &[OsString]) -> ExitCode {
    if let [first, program @ ..] = arguments
        && first == "odd"
    {
        return odd::execute(program);
    }
    if let [first, program @ ..] = arguments
        && let Some(operations) = first.to_str().and_then(|first| first.strip_prefix("without="))
    {
        return odd::execute_without(operations, program);
    }
    let mut actions = Actions::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            continue;
        }
        if argument.as_bytes().starts_with(b"--") {
            arguments.next();
            continue;
        }
        match actions.run(argument) {
            Next::Continue => {}
            Next::Exit(code) => return code,
        }
    }
    ExitCode::SUCCESS
}
