//! How a program is run in a jail beside its VMM, for the commands that do so.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use stockade::spec::JailId;
use stockade::{Error, Exec, ExecProcess, ExitStatus, Receipt, Store};

use super::lookup::find;
use super::state::StateArgs;
use crate::errors::hints;
use crate::terminal::output::{Failure, info, require_root};
use crate::terminal::pty;

/// How a program is run in a jail.
#[derive(Debug, Args)]
pub(crate) struct ProgramArgs {
    /// Run this static program of the host: the jail need not have it.
    #[arg(long, value_name = "FILE")]
    pub(crate) host_program: Option<PathBuf>,
    /// Stay root, with capabilities over files alone, and see the jail's tree without the mounts in it.
    #[arg(long)]
    root: bool,
    /// A variable of its environment (repeatable).
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    #[command(flatten)]
    state: StateArgs,
}

/// Runs a program for the command of this name; `words` begin with the program unless it is the host's.
pub(crate) fn run(
    command: &str,
    id: &JailId,
    how: &ProgramArgs,
    words: &[OsString],
) -> Result<ExitCode, Failure> {
    Ok(ExitCode::from(exec(command, id, how, words)?.shell_code()))
}

fn exec(command: &str, id: &JailId, how: &ProgramArgs, words: &[OsString]) -> Result<ExitStatus, Failure> {
    require_root(command)?;
    let store = how.state.store()?;
    pty::run_exec(request(how, words)?, &|exec| enter(&store, id, how.root, exec))
}

/// What is to be run.
fn request(how: &ProgramArgs, words: &[OsString]) -> Result<Exec, Failure> {
    let (exec, arguments) = match (&how.host_program, words) {
        (Some(file), arguments) => {
            let exec = Exec::with_host_program(file);
            (exec.map_err(|error| Failure::new(format!("--host-program: {error}")))?, arguments)
        }
        (None, [program, arguments @ ..]) => (Exec::with_program(program)?, arguments),
        (None, []) => return Err(Failure::new("there is no program to run")),
    };
    let exec = exec.arguments(arguments).as_root(how.root);
    how.env.iter().try_fold(exec, |exec, variable| match variable.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(exec.variable(name, value)),
        _ => Err(Failure::new(format!("--env: {variable:?} is not NAME=VALUE"))),
    })
}

fn enter(store: &Store, id: &JailId, as_root: bool, exec: Exec) -> Result<ExecProcess, Failure> {
    let id = find(store, id)?;
    match store.vmm(&id)? {
        Some(watched) => {
            if as_root {
                warn_of_links(watched.receipt());
            }
            watched.exec(exec).map_err(|error| hints::exec_failed(&error))
        }
        None => Err(Error::NotRunning(id).into()),
    }
}

/// A hard link is the host's own file, which root can change although the VMM cannot.
fn warn_of_links(receipt: &Receipt) {
    for (path, source) in receipt.linked() {
        info(&format!(
            "{path} is a hard link of the host's {source}, which a program that is root in the jail can change; place \
             it with :copy"
        ));
    }
}
