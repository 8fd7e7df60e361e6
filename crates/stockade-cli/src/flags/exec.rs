//! How a program is run in a jail beside its VMM, for the commands that do so.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use stockade::spec::JailId;
use stockade::{Ended, Error, Receipt, Store, Visit, Visitor};

use super::lookup::find;
use super::state::StateArgs;
use crate::errors::hints;
use crate::terminal::output::{Failure, note, require_root};
use crate::terminal::pty;

/// How a program is run in a jail.
#[derive(Debug, Args)]
pub(crate) struct VisitArgs {
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
    how: &VisitArgs,
    words: &[OsString],
) -> Result<ExitCode, Failure> {
    Ok(ExitCode::from(visit(command, id, how, words)?.shell_code()))
}

fn visit(command: &str, id: &JailId, how: &VisitArgs, words: &[OsString]) -> Result<Ended, Failure> {
    require_root(command)?;
    let store = how.state.store()?;
    pty::attend(wish(how, words)?, &|visit| enter(&store, id, how.root, visit))
}

/// What is to be run.
fn wish(how: &VisitArgs, words: &[OsString]) -> Result<Visit, Failure> {
    let (visit, arguments) = match (&how.host_program, words) {
        (Some(file), arguments) => {
            let visit = Visit::with_host_program(file);
            (visit.map_err(|error| Failure::new(format!("--host-program: {error}")))?, arguments)
        }
        (None, [program, arguments @ ..]) => (Visit::with_program(program)?, arguments),
        (None, []) => return Err(Failure::new("there is no program to run")),
    };
    let visit = visit.arguments(arguments).as_root(how.root);
    how.env.iter().try_fold(visit, |visit, variable| match variable.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(visit.variable(name, value)),
        _ => Err(Failure::new(format!("--env: {variable:?} is not NAME=VALUE"))),
    })
}

fn enter(store: &Store, id: &JailId, as_root: bool, visit: Visit) -> Result<Visitor, Failure> {
    let id = find(store, id)?;
    match store.watch(&id)? {
        Some(watched) => {
            if as_root {
                warn_of_links(watched.receipt());
            }
            watched.visit(visit).map_err(|error| hints::not_run(&error))
        }
        None => Err(Error::NotRunning(id).into()),
    }
}

/// A hard link is the host's own file, which root can change although the VMM cannot.
fn warn_of_links(receipt: &Receipt) {
    for (path, source) in receipt.linked() {
        note(&format!(
            "{path} is a hard link of the host's {source}, which a program that is root in the jail can change; place \
             it with :copy"
        ));
    }
}
