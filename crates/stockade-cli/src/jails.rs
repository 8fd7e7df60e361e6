//! The commands for jails that outlive the command: each finds its jail by the receipt.

use std::process::ExitCode;
use std::time::Duration;

use stockade::spec::{JailId, JailPath};
use stockade::{Dead, Ended, Error, How, Jail, JailState, Prepared, Report, Running, Store};

use crate::args::{CreateArgs, IdsArgs, KillArgs, LogsArgs, PlaceArgs, RmArgs, StartArgs, in_flag};
use crate::output::{Failure, note, print, require_root};
use crate::run::{prepare, tell_left};

pub(crate) fn create(args: &CreateArgs) -> Result<ExitCode, Failure> {
    let spec = args.jail.spec()?;
    require_root("create")?;
    prepare(&args.state.store()?, &spec, &args.jail)?.leave()?;
    print(&format!("{}\n", spec.id)).map(|()| ExitCode::SUCCESS)
}

pub(crate) fn place(args: &PlaceArgs) -> Result<ExitCode, Failure> {
    require_root("place")?;
    let mut jail = open(&args.state.store()?, &args.id)?;
    for (source, name) in args.files() {
        let placed = match &mut jail {
            Jail::Prepared(prepared) => prepared.place(source, name, How::Auto),
            Jail::Running(running) => running.place(source, name, How::Auto),
            Jail::Dead(dead) => return Err(is_dead(dead)),
        };
        let failed = |e: Error| Failure::new(format!("{}: {e}", source.display()));
        go_on(print(&format!("{}\n", placed.map_err(failed)?)))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn start(args: &StartArgs) -> Result<ExitCode, Failure> {
    require_root("start")?;
    let log_bytes = args.log_bytes()?;
    let mut prepared = match open(&args.state.store()?, &args.id)? {
        Jail::Prepared(prepared) => prepared,
        Jail::Running(running) => {
            return Err(Error::Running { id: args.id.clone(), pid: running.pid() }.into());
        }
        Jail::Dead(dead) => return Err(is_dead(&dead)),
    };
    if !args.arguments.is_empty() {
        prepared.set_arguments(args.arguments.clone());
    }
    let ready = args.ready.as_deref().map(JailPath::new).transpose().map_err(in_flag("ready"))?;
    let mut running = prepared.launch_watched(log_bytes)?;
    if let Some(socket) = ready {
        running.wait_ready(&socket, Duration::from_secs(args.timeout))?;
    }
    print(&format!("{}\n", running.pid())).map(|()| ExitCode::SUCCESS)
}

pub(crate) fn wait(args: &IdsArgs) -> Result<ExitCode, Failure> {
    let store = args.state.store()?;
    for id in &args.ids {
        let ended = match store.watch(id)? {
            Some(watched) => watched.wait_until(None)?,
            None => match store.read(id)? {
                None => return Err(no_jail(id)),
                Some(receipt) if receipt.vmm().is_none() => {
                    return Err(Failure::new(format!("jail {id} was not started")));
                }
                Some(_) => store.ended(id),
            },
        };
        match ended {
            Some(ended) if ended != Ended::Unknown => print(&format!("{}\n", ended.shell_code()))?,
            _ => {
                return Err(Failure::new(format!(
                    "jail {id} does not run, and how its VMM ended is not known"
                )));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn kill(args: &KillArgs) -> Result<ExitCode, Failure> {
    let signal = args.signal()?;
    require_root("kill")?;
    let store = args.jails.state.store()?;
    for id in &args.jails.ids {
        match store.watch(id)? {
            Some(watched) => watched.signal(signal)?,
            None if store.read(id)?.is_none() => return Err(no_jail(id)),
            None => return Err(Failure::new(format!("jail {id} does not run"))),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes what can be removed of the jails, and tells of each that cannot.
pub(crate) fn rm(args: &RmArgs) -> Result<ExitCode, Failure> {
    require_root("rm")?;
    let store = args.jails.state.store()?;
    let mut code = ExitCode::SUCCESS;
    for id in &args.jails.ids {
        match remove(&store, id, args.force) {
            Ok(report) if report.is_clean() => go_on(print(&format!("{id}\n")))?,
            Ok(report) => {
                tell_left(&report);
                code = ExitCode::FAILURE;
            }
            Err(Failure::Told(line)) => {
                note(&line);
                code = ExitCode::FAILURE;
            }
            Err(gone) => return Err(gone),
        }
    }
    Ok(code)
}

fn remove(store: &Store, id: &JailId, force: bool) -> Result<Report, Failure> {
    Ok(match open(store, id)? {
        Jail::Prepared(prepared) => Prepared::teardown(prepared)?,
        Jail::Dead(dead) => Dead::teardown(dead)?,
        Jail::Running(running) if force => Running::teardown(running)?,
        Jail::Running(running) => {
            let running = Error::Running { id: id.clone(), pid: running.pid() };
            return Err(Failure::new(format!("{running}; stop it first, or use --force")));
        }
    })
}

pub(crate) fn logs(args: &LogsArgs) -> Result<ExitCode, Failure> {
    let store = args.state.store()?;
    if store.read(&args.id)?.is_none() {
        return Err(no_jail(&args.id));
    }
    let parts = store.logs(&args.id);
    if parts.is_empty() {
        note(&format!("jail {} has no log: it has written nothing, or was not started with start", args.id));
    }
    let mut stdout = std::io::stdout().lock();
    for part in parts {
        let failed = |e| Failure::new(format!("failed to open {part}: {e}"));
        let mut part = std::fs::File::open(&part).map_err(failed)?;
        std::io::copy(&mut part, &mut stdout)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is left to do is done even if nobody reads of it any more.
fn go_on(printed: Result<(), Failure>) -> Result<(), Failure> {
    match printed {
        Err(Failure::ReaderGone) => Ok(()),
        other => other,
    }
}

fn open(store: &Store, id: &JailId) -> Result<Jail, Failure> {
    store.open(id)?.ok_or_else(|| no_jail(id))
}

fn no_jail(id: &JailId) -> Failure {
    Failure::new(format!("there is no jail {id}: stockade ps lists those that are"))
}

fn is_dead(dead: &Dead) -> Failure {
    let receipt = dead.receipt();
    let what = if receipt.state() == JailState::Ended { "the VMM of jail" } else { "jail" };
    let how = if receipt.state() == JailState::Ended { "has ended" } else { "is dead" };
    Failure::new(format!("{what} {id} {how}: stockade rm {id} removes the jail", id = receipt.id))
}
