//! `stockade rm`: jails removed.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use stockade::spec::JailId;
use stockade::{Error, Jail, Report, Store, TeardownOptions, teardown_all};

use crate::jails::{IdsArgs, go_on, open};
use crate::output::{Failure, note, print, require_root};
use crate::run::tell_left;
use crate::stop::stop_together;

/// Arguments of `rm`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stockade rm --force vm-1 vm-2
  stockade rm --force --file jails.toml")]
pub(crate) struct RmArgs {
    /// Kill a VMM that runs, and unmount what others have mounted in the jail's directory.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Ask a VMM that runs to end, and kill it only after so many seconds.
    #[arg(short, long, value_name = "SECONDS", requires = "force")]
    pub(crate) timeout: Option<u64>,
    #[command(flatten)]
    pub(crate) jails: IdsArgs,
}

/// Removes what can be removed of the jails, and tells of each that cannot.
pub(crate) fn rm(args: &RmArgs) -> Result<ExitCode, Failure> {
    require_root("rm")?;
    let (store, named) = args.jails.store_and_ids()?;
    if let Some(seconds) = args.timeout {
        stop_together(&store, &named, Duration::from_secs(seconds))?;
    }
    let mut code = ExitCode::SUCCESS;
    // Who is named twice is removed once.
    let mut ids: Vec<JailId> = Vec::new();
    for id in &named {
        if !ids.contains(id) {
            ids.push(id.clone());
        }
    }
    for ids in ids.chunks(MOST_OPEN) {
        for (id, removed) in ids.iter().zip(remove(&store, ids, args.force)) {
            match removed {
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
    }
    Ok(code)
}

/// How many jails are held open at once; each takes a few descriptors.
const MOST_OPEN: usize = 64;

/// Removes these jails together, and tells what became of each.
fn remove(store: &Store, ids: &[JailId], force: bool) -> Vec<Result<Report, Failure>> {
    let options = TeardownOptions { unmount_foreign: force, ..TeardownOptions::default() };
    let mut jails = Vec::new();
    let opened: Vec<Result<(), Failure>> =
        ids.iter().map(|id| removable(store, id, force).map(|jail| jails.push(jail))).collect();
    let mut reports = teardown_all(jails, options).into_iter();
    let mut report = |()| match reports.next() {
        Some(report) => Ok(report?),
        None => unreachable!("every jail that is torn down has a report"),
    };
    opened.into_iter().map(|opened| opened.and_then(&mut report)).collect()
}

/// Opens a jail that may be removed.
fn removable(store: &Store, id: &JailId, force: bool) -> Result<Jail, Failure> {
    match open(store, id)? {
        Jail::Running(running) if !force => {
            let running = Error::Running { id: id.clone(), pid: running.pid() };
            Err(Failure::new(format!("{running}; stop it first, or use --force")))
        }
        jail => Ok(jail),
    }
}
