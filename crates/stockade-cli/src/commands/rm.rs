//! `stockade rm`: removes jails.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use stockade::spec::JailId;
use stockade::{
    Collection, Error, Jail, Leftover, Progress, Report, Store, TeardownOptions, teardown_all_with_progress,
};

use crate::batch::stop::stop_vmms;
use crate::flags::duration::duration;
use crate::flags::lookup::open;
use crate::select::{IdMatch, SelectArgs, Selection};
use crate::terminal::output::{
    Failure, ignore_closed_stdout, print, print_json, report_leftovers, require_root, success_if,
};
use crate::terminal::progress::SharedBar;

/// Arguments of `rm`.
#[derive(Debug, Args)]
#[command(
    after_help = "With --all or --filter, rm skips running jails and reports them; the exit code is then 1. With --force it removes them too.

Examples:
  stockade rm --force vm-1 vm-2
  stockade rm --force --file jails.toml
  stockade rm --filter state=exited --filter older=1h"
)]
pub(crate) struct RmArgs {
    /// Kill running VMMs, and unmount other programs' mounts in the jails' directories.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// With --force, send SIGTERM first, and kill the VMMs after this time.
    #[arg(short, long, value_name = "TIME", value_parser = duration, requires = "force")]
    pub(crate) timeout: Option<Duration>,
    /// Print a JSON report.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) jails: SelectArgs,
}

/// Removes the jails, and reports each failure.
pub(crate) fn rm(args: &RmArgs) -> Result<ExitCode, Failure> {
    require_root("rm")?;
    let (store, Selection { ids, unknown, .. }) = args.jails.select(IdMatch::Exact, |_| true)?;
    // The removal of a jail that cannot be stopped reports it again, with everything else that is left.
    let stopped = args.timeout.map(|grace| stop_vmms(&store, &ids, grace));
    let stuck: Vec<JailId> = stopped.into_iter().flatten().map(|(id, _)| id).collect();
    let mut collection = Collection::default();
    for (named, failure) in unknown {
        collection.problems.push(problem(&named, &failure));
        failure.report();
    }
    let bar = SharedBar::of_removal();
    let (mut done, total) = (0, ids.len() as u64);
    for ids in ids.chunks(MOST_OPEN) {
        let show = |of_these: Progress| bar.show(Progress { done: done + of_these.done, total });
        let removed = remove(&store, ids, &stuck, args.force, &show);
        bar.aside(|| {
            ids.iter()
                .zip(removed)
                .try_for_each(|(id, removed)| report_removal(id, removed, args, &mut collection))
        })?;
        done += ids.len() as u64;
    }
    drop(bar);
    if args.json {
        print_json(&collection)?;
    }
    Ok(success_if(collection.is_clean()))
}

/// Reports the removal of one jail, and adds it to the collection.
fn report_removal(
    id: &JailId,
    removed: Result<Report, Failure>,
    args: &RmArgs,
    collection: &mut Collection,
) -> Result<(), Failure> {
    match removed {
        Ok(report) => {
            report_leftovers(&report);
            let clean = report.is_clean();
            collection.jails.push(report);
            if clean && !args.json { ignore_closed_stdout(print(&format!("{id}\n"))) } else { Ok(()) }
        }
        Err(failure) => {
            collection.problems.push(problem(id, &failure));
            failure.report();
            Ok(())
        }
    }
}

fn problem(id: &JailId, failure: &Failure) -> Leftover {
    Leftover { what: format!("jail {id}"), reason: failure.line() }
}

/// The number of jails that are open at once. Each takes a few file descriptors.
const MOST_OPEN: usize = 64;

/// Removes these jails together, and returns a result for each.
///
/// # Arguments
/// `stuck` are jails whose processes were killed and have not exited in time. They get no more time.
fn remove(
    store: &Store,
    ids: &[JailId],
    stuck: &[JailId],
    force: bool,
    show: &(dyn Fn(Progress) + Sync),
) -> Vec<Result<Report, Failure>> {
    let options = TeardownOptions { unmount_foreign: force, ..TeardownOptions::default() };
    let mut jails = Vec::new();
    let opened: Vec<Result<(), Failure>> =
        ids.iter().map(|id| removable(store, id, force).map(|jail| jails.push(jail))).collect();
    for jail in &mut jails {
        if let Jail::Running(running) = jail
            && stuck.contains(&running.receipt().id)
        {
            running.give_up();
        }
    }
    let mut reports = teardown_all_with_progress(jails, options, show).into_iter();
    let mut report = |()| match reports.next() {
        Some(report) => Ok(report?),
        None => unreachable!("every jail that is torn down has a report"),
    };
    opened.into_iter().map(|opened| opened.and_then(&mut report)).collect()
}

/// Opens a jail for removal.
fn removable(store: &Store, id: &JailId, force: bool) -> Result<Jail, Failure> {
    match open(store, id)? {
        Jail::Running(running) if !force => {
            let running = Error::Running { id: id.clone(), pid: running.pid() };
            Err(Failure::new(format!("{running}; stop it first or use --force")))
        }
        jail => Ok(jail),
    }
}
