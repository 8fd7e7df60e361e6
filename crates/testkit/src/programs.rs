//! Running the programs under test.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{PoisonError, RwLock};

/// The output and the exit code of a program.
#[derive(Debug)]
pub struct Output {
    /// The exit code; 128 plus the signal's number if a signal killed the program.
    pub code: i32,
    /// The text on stdout.
    pub stdout: String,
    /// The text on stderr.
    pub stderr: String,
}

/// The path of a program of this workspace.
///
/// # Panics
/// Panics if the program is missing: `cargo build --workspace` builds it.
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
/// Panics if the program cannot be run.
pub fn run<S: AsRef<OsStr>>(name: &str, arguments: &[S]) -> Output {
    run_with(Command::new(program(name)).args(arguments))
}

/// Locked shared while a program runs, and exclusively during the search for running children of this process. The
/// children of concurrent tests without a guard are no leak, and the search must not reap them.
pub(crate) static RUNNING: RwLock<()> = RwLock::new(());

/// Runs any command with an empty stdin.
///
/// # Panics
/// Panics if the command cannot be run.
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
