//! `stockade wait`: until VMMs have ended.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use stockade::spec::JailId;
use stockade::{ExitStatus, JailState, Listing, Store};

use crate::flags::lookup::no_such_jail;
use crate::select::{IdMatch, SelectArgs};
use crate::terminal::output::{Code, Failure, info, print, print_json_line, require_root_to_look};
use crate::terminal::time::until;

/// Arguments of `wait`.
#[derive(Debug, Args)]
#[command(
    after_help = "A jail may be named by the beginning of its id, and is told if it was. With --all and --filter its name is
printed before the exit code.

Examples:
  stockade wait --any --timeout 60 vm-1 vm-2
  stockade wait --all"
)]
pub(crate) struct WaitArgs {
    /// Return when the first has ended, and print its name before its exit code.
    #[arg(long)]
    any: bool,
    /// Wait no longer than so many seconds; then the exit code is 124.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Print one JSON object a line, in the order in which the VMMs end.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    jails: SelectArgs,
}

/// How a VMM ended, for programs.
#[derive(Serialize)]
struct End<'a> {
    id: &'a JailId,
    ended: ExitStatus,
    /// As a shell tells it; `None` if it is not known.
    code: Option<u8>,
}

pub(crate) fn wait(args: &WaitArgs) -> Result<ExitCode, Failure> {
    require_root_to_look("wait")?;
    let started = |jail: &Listing| matches!(jail.state, JailState::Running | JailState::Exited);
    let (store, selection) = args.jails.select(IdMatch::PrefixReported, started)?;
    let with_name = args.any || selection.by_filter;
    let ids = selection.all_known()?;
    ids.iter().try_for_each(|id| check_started(&store, id))?;
    let deadline = until(args.timeout);
    let mut ends = store.ends(&ids)?;
    let mut known = BTreeMap::new();
    let mut printed = 0;
    let mut code = Code::Done.into();
    while let Some((id, ended)) = ends.next(deadline)? {
        if ended == ExitStatus::Unknown {
            info(&format!("jail {id} does not run, and how its VMM ended is not known"));
            code = Code::Failed.into();
        }
        if args.json {
            let code = (ended != ExitStatus::Unknown).then(|| ended.shell_code());
            print_json_line(&End { id: &id, ended, code })?;
        } else if with_name && ended != ExitStatus::Unknown {
            print(&format!("{id} {}\n", ended.shell_code()))?;
        }
        if args.any {
            return Ok(code);
        }
        known.insert(id, ended);
        // In the order of the command line, each as soon as those before it are known.
        while let Some(ended) = ids.get(printed).and_then(|id| known.get(id)) {
            if !args.json && !with_name && *ended != ExitStatus::Unknown {
                print(&format!("{}\n", ended.shell_code()))?;
            }
            printed += 1;
        }
    }
    let late: Vec<&str> = ends.waiting().map(JailId::as_str).collect();
    if let (Some(seconds), false) = (args.timeout, late.is_empty()) {
        let verb = if late.len() == 1 { "runs" } else { "run" };
        info(&format!("{} still {verb} after {seconds} s", late.join(", ")));
        return Ok(Code::TimedOut.into());
    }
    Ok(code)
}

fn check_started(store: &Store, id: &JailId) -> Result<(), Failure> {
    match store.read(id)? {
        None => Err(no_such_jail(id)),
        Some(receipt) if receipt.vmm().is_none() => Err(Failure::new(format!("jail {id} was not started"))),
        Some(_) => Ok(()),
    }
}
