//! `stockade shell`: a shell in a jail beside its VMM.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use stockade::spec::JailId;

use crate::flags::exec::{ProgramArgs, run};
use crate::terminal::output::Failure;

/// Arguments of `shell`.
#[derive(Debug, Args)]
#[command(after_help = "The exit code is the shell's; 125 to 127 as for exec.

Example:
  stockade shell --host-program /bin/busybox vm-1")]
pub(crate) struct ShellArgs {
    /// Name of the jail.
    id: JailId,
    #[command(flatten)]
    how: ProgramArgs,
}

pub(crate) fn shell(args: &ShellArgs) -> Result<ExitCode, Failure> {
    // A program of the host that is more than a shell, as busybox is, has to be told.
    let of_host = args.how.host_program.as_ref();
    let is_shell = of_host
        .is_some_and(|file| file.file_name().is_some_and(|name| name.to_string_lossy().ends_with("sh")));
    let words: &[OsString] = if is_shell { &[] } else { &["sh".into()] };
    run("shell", &args.id, &args.how, words)
}
