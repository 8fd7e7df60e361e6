//! The flags of commands that run a program in a running jail.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use stockade::spec::{JailId, cannot, reason};
use stockade::{Error, Exec, ExecProcess, ExitStatus, Receipt, Store};

use super::lookup::find;
use super::state::StateArgs;
use crate::errors::hints;
use crate::terminal::output::{Failure, info, require_root};
use crate::terminal::pty;

/// Flags of an exec process.
#[derive(Debug, Args)]
pub(crate) struct ProgramArgs {
    /// Run this static program of the host instead of one in the jail.
    #[arg(long, value_name = "FILE")]
    pub(crate) host_program: Option<PathBuf>,
    /// Run as root, with capabilities over files only, and see the jail's files without its mounts.
    #[arg(long)]
    root: bool,
    /// Environment variable of the program (repeatable).
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    #[command(flatten)]
    state: StateArgs,
}

/// Runs a program for the command of this name.
///
/// # Arguments
/// `arguments` begin with the program, unless `--host-program` names one.
pub(crate) fn run(
    command: &str,
    id: &JailId,
    how: &ProgramArgs,
    arguments: &[OsString],
) -> Result<ExitCode, Failure> {
    Ok(ExitCode::from(exec(command, id, how, arguments)?.shell_code()))
}

fn exec(
    command: &str,
    id: &JailId,
    how: &ProgramArgs,
    arguments: &[OsString],
) -> Result<ExitStatus, Failure> {
    require_root(command)?;
    let store = how.state.store()?;
    pty::run_exec(request(how, arguments)?, &|exec| enter(&store, id, how.root, exec))
}

fn request(how: &ProgramArgs, arguments: &[OsString]) -> Result<Exec, Failure> {
    let (exec, arguments) = match (&how.host_program, arguments) {
        (Some(file), arguments) => {
            let refused = |error: Error| match file.metadata() {
                Err(cause) => cannot("open", file, &cause),
                Ok(_) => reason(&error),
            };
            let exec = Exec::with_host_program(file);
            let exec = exec.map_err(|error| Failure::flag("host-program", refused(error)));
            (exec?, arguments)
        }
        (None, [program, arguments @ ..]) => (Exec::with_program(program)?, arguments),
        (None, []) => return Err(Failure::new("no program to run; name one behind the jail's id")),
    };
    let exec = exec.arguments(arguments).as_root(how.root);
    how.env.iter().try_fold(exec, |exec, variable| match variable.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(exec.variable(name, value)),
        _ => Err(Failure::new(format!("--env: '{variable}' is not NAME=VALUE; use for example TERM=linux"))),
    })
}

fn enter(store: &Store, id: &JailId, as_root: bool, exec: Exec) -> Result<ExecProcess, Failure> {
    let id = find(store, id)?;
    match store.vmm(&id)? {
        Some(vmm) => {
            if as_root {
                warn_of_hard_links(vmm.receipt());
            }
            vmm.exec(exec).map_err(|error| hints::exec_failed(&error))
        }
        None => Err(Error::NotRunning(id).into()),
    }
}

/// Warns of hard links: they are the host's own files, which root can change although the VMM cannot.
fn warn_of_hard_links(receipt: &Receipt) {
    for (path, source) in receipt.linked() {
        info(&format!(
            "'{path}' is a hard link to the host's '{source}', which a root program in the jail can change; place it with \
             :copy"
        ));
    }
}
