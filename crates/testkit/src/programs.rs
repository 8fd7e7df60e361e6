//! The programs under test, run and listened to.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{PoisonError, RwLock};

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Output {
    /// Its exit code; 128 and the signal's number if it was killed.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// A program of this workspace, built beside the test that asks for it.
///
/// # Panics
/// If it is not there: it is built by testing or building the whole workspace.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("find the test's own file");
    let built = test.parent().and_then(|deps| deps.parent()).expect("a test is built into target/…/deps");
    let path = built.join(name);
    assert!(path.exists(), "{} is missing: build it with cargo build --workspace", path.display());
    path
}

/// Runs a program of this workspace with an empty stdin.
///
/// # Panics
/// If it cannot be run.
pub fn run<S: AsRef<OsStr>>(name: &str, arguments: &[S]) -> Output {
    run_with(Command::new(program(name)).args(arguments))
}

/// Held by whoever runs a program, and held alone by whoever looks for living children of this process: those of
/// tests without a guard, which run beside, are no leak, and are not his to reap.
pub(crate) static RUNNING: RwLock<()> = RwLock::new(());

/// Runs any command with an empty stdin.
///
/// # Panics
/// If it cannot be run.
pub fn run_with(command: &mut Command) -> Output {
    use std::os::unix::process::ExitStatusExt;
    let _running = RUNNING.read().unwrap_or_else(PoisonError::into_inner);
    let output = command.stdin(Stdio::null()).output().expect("run a program under test");
    let code = output.status.code().or(output.status.signal().map(|signal| 128 + signal));
    Output {
        code: code.unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
