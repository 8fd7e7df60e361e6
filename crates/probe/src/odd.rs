//! A launcher in an odd state, for the test that nothing of it gets into a jail.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use stockade_syscalls::state;

/// Executes a program in a state in which everything that it inherits is odd; returns only if that failed.
pub(crate) fn execute(program: &[OsString]) -> ExitCode {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        eprintln!("stockade-probe: odd: {what}: {error}");
        ExitCode::from(2)
    };
    // A descriptor of the host that is not closed at the exec, and a working directory.
    let leaked = File::open("/").and_then(|root| Ok(rustix::io::dup(root)?));
    let leaked = match leaked {
        Ok(leaked) => leaked,
        Err(error) => return failed("descriptor", &error),
    };
    if let Err(error) = std::env::set_current_dir("/usr") {
        return failed("working directory", &error);
    }
    if let Err((what, error)) = state::make_odd() {
        return failed(what, &error);
    }
    let words: Result<Vec<CString>, _> = program.iter().map(|word| CString::new(word.as_bytes())).collect();
    let error = words.map_or_else(Into::into, |words| state::execute(&words));
    drop(leaked);
    failed("execute", &error)
}
