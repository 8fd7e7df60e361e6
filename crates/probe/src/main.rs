//! `stockade-probe`: runs the actions on its command line; see the library.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    stockade_probe::run(&arguments)
}
