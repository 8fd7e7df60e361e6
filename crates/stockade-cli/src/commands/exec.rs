//! `stockade exec`: a program in a jail beside its VMM.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use stockade::spec::JailId;

use crate::flags::exec::{ProgramArgs, run};
use crate::terminal::output::Failure;

/// Arguments of `exec`.
#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is the program's; 125 if stockade fails, 126 if the program may not be executed,
127 if it is not there.

Examples:
  stockade exec vm-1 -- /firecracker --version
  stockade exec --host-program /bin/busybox vm-1 -- ls -l /dev"
)]
pub(crate) struct ExecArgs {
    /// Name of the jail, or its beginning.
    id: JailId,
    /// The program in the jail and its arguments; with --host-program the arguments alone.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PROGRAM")]
    #[arg(required_unless_present = "host_program")]
    words: Vec<OsString>,
    #[command(flatten)]
    how: ProgramArgs,
}

pub(crate) fn exec(args: &ExecArgs) -> Result<ExitCode, Failure> {
    run("exec", &args.id, &args.how, &args.words)
}
