//! A launcher with unusual inherited state, for the test that no jail inherits it.

use std::ffi::{CString, OsString};
use std::fs::File;
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
    let arguments: Result<Vec<CString>, _> =
        program.iter().map(|argument| CString::new(argument.as_bytes())).collect();
    let error = arguments.map_or_else(Into::into, |arguments| state::execute(&arguments));
    drop(leaked);
    failed("execute", &error)
}
