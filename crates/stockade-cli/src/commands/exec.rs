//! `stockade exec`: runs a program in a running jail.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use stockade::spec::JailId;

use crate::flags::exec::{ProgramArgs, run};
use crate::terminal::output::Failure;

/// Arguments of `exec`.
#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is the program's. It is 125 if stockade fails, 126 if the program cannot be executed, and 127 if it does not exist.

Examples:
  stockade exec vm-1 -- /firecracker --version
  stockade exec --host-program /bin/busybox vm-1 -- ls -l /dev"
)]
pub(crate) struct ExecArgs {
    /// ID of the jail, or a unique prefix of it.
    id: JailId,
    /// Program in the jail and its arguments; with --host-program the arguments only.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    #[arg(required_unless_present = "host_program")]
    arguments: Vec<OsString>,
    #[command(flatten)]
    how: ProgramArgs,
}

pub(crate) fn exec(args: &ExecArgs) -> Result<ExitCode, Failure> {
    run("exec", &args.id, &args.how, &args.arguments)
}
