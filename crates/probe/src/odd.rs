//! Launchers for tests: with unusual inherited state, which no jail may inherit, and under a seccomp filter.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use stockade_syscalls::state;

/// Executes a program with unusual values of all inherited attributes; returns only on failure.
pub(crate) fn execute(program: &[OsString]) -> ExitCode {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        eprintln!("stockade-probe: odd: {what}: {error}");
        ExitCode::from(2)
    };
    // A file descriptor of the host that stays open at the exec, and a working directory.
    let leaked = File::open("/").and_then(|root| Ok(rustix::io::dup(root)?));
    let leaked = match leaked {
        Ok(leaked) => leaked,
        Err(error) => return failed("file descriptor", &error),
    };
    if let Err(error) = std::env::set_current_dir("/usr") {
        return failed("working directory", &error);
    }
    if let Err((what, error)) = state::make_odd() {
        return failed(what, &error);
    }
    let error = start(program);
    drop(leaked);
    failed("execute", &error)
}

/// Executes a program under a seccomp filter that forbids operations; returns only on failure.
pub(crate) fn execute_without(operations: &str, program: &[OsString]) -> ExitCode {
    let error = state::forbid(operations).err().unwrap_or_else(|| start(program));
    eprintln!("stockade-probe: without={operations}: {error}");
    ExitCode::from(2)
}

/// Executes a program; returns only on failure.
fn start(program: &[OsString]) -> io::Error {
    let arguments: Result<Vec<CString>, _> =
        program.iter().map(|argument| CString::new(argument.as_bytes())).collect();
    arguments.map_or_else(Into::into, |arguments| state::execute(&arguments))
}
