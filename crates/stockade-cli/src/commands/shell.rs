//! `stockade shell`: runs a shell in a running jail.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use stockade::spec::JailId;

use crate::flags::exec::{ProgramArgs, run};
use crate::terminal::output::Failure;

/// Arguments of `shell`.
#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is the shell's. It is 125 if stockade fails, 126 if the shell cannot be executed, and 127 if it does not exist.

Example:
  stockade shell --host-program /bin/busybox vm-1"
)]
pub(crate) struct ShellArgs {
    /// ID of the jail, or a unique prefix of it.
    id: JailId,
    #[command(flatten)]
    how: ProgramArgs,
}

pub(crate) fn shell(args: &ShellArgs) -> Result<ExitCode, Failure> {
    // A program that is more than a shell, such as busybox, needs the name of the applet.
    let of_host = args.how.host_program.as_ref();
    let is_shell = of_host
        .is_some_and(|file| file.file_name().is_some_and(|name| name.to_string_lossy().ends_with("sh")));
    let arguments: &[OsString] = if is_shell { &[] } else { &["sh".into()] };
    run("shell", &args.id, &args.how, arguments)
}
