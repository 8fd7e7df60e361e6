//! Invalid input: one line that names the flag or file and the cause, an exit code, and nothing is created.
#![allow(clippy::unwrap_used, missing_docs)]

mod accepted;
mod arguments;
mod circumstances;
mod paths;
mod settings;
mod table;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::Command;

use testkit::{Guard, Output, privileged, program, run, run_with, said, stockade};

/// A valid command line as flags and values.
struct Line {
    flags: Vec<(&'static str, String)>,
}

impl Line {
    fn good(guard: &Guard) -> Self {
        let flags = vec![
            ("--id", guard.named("jail")),
            ("--exec-file", program("stockade-probe").display().to_string()),
            ("--chroot-base-dir", guard.base().display().to_string()),
            ("--state-dir", guard.state().display().to_string()),
        ];
        Self { flags }
    }

    fn with(mut self, flag: &'static str, value: impl Into<String>) -> Self {
        self.flags.retain(|(name, _)| *name != flag);
        self.flags.push((flag, value.into()));
        self
    }

    fn without(mut self, flag: &'static str) -> Self {
        self.flags.retain(|(name, _)| *name != flag);
        self
    }

    fn arguments(&self, command: &str) -> Vec<String> {
        let flags = self.flags.iter().flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()]);
        std::iter::once(command.to_owned()).chain(flags).collect()
    }

    fn run(&self) -> Output {
        run("stockade", &self.arguments("run"))
    }
}

/// Runs an invalid command line, which must print exactly this line and create nothing.
fn refused(guard: &Guard, line: &Line, said: &str) {
    let output = line.run();
    assert_eq!(output.stderr, format!("stockade: {said}\n"));
    assert_eq!((output.code, output.stdout.as_str()), (125, ""));
    nothing_created(guard);
}

fn nothing_created(guard: &Guard) {
    assert!(!guard.base().exists(), "the base directory was created");
    assert!(!guard.state().exists(), "the state directory was created");
}

#[test]
fn the_line_without_a_mistake_works() {
    privileged!(guard, {
        let output = Line::good(&guard).run();
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    });
}
