//! `stockade wait`: waits until VMMs exit.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use stockade::spec::JailId;
use stockade::{ExitStatus, JailState, Known, Listing, Store};

use crate::flags::duration::duration;
use crate::flags::lookup::no_such_jail;
use crate::select::{IdMatch, SelectArgs};
use crate::terminal::output::{Code, Failure, info, print, print_json_line, require_root_to_look};
use crate::terminal::time::until;

/// Arguments of `wait`.
#[derive(Debug, Args)]
#[command(
    after_help = "An ID prefix is accepted if it is unique; the full ID is then printed. With --any, --all or --filter, the jail's ID is printed before the exit code.

Examples:
  stockade wait --any --timeout 60 vm-1 vm-2
  stockade wait --all"
)]
pub(crate) struct WaitArgs {
    /// Return when the first VMM exits.
    #[arg(long)]
    any: bool,
    /// Give up after this time, with exit code 124.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// Print one JSON object per line, in the order in which the VMMs exit.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    jails: SelectArgs,
}

/// The exit of a VMM in the JSON output.
#[derive(Serialize)]
struct End<'a> {
    id: &'a JailId,
    ended: ExitStatus,
    /// The exit code as a shell reports it; `None` if it is unknown.
    code: Option<u8>,
    /// The processes of the jail that the kernel killed because memory ran out; `None` if they are not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    oom_kills: Option<&'a Known<u64>>,
}

pub(crate) fn wait(args: &WaitArgs) -> Result<ExitCode, Failure> {
    require_root_to_look("wait")?;
    let started = |jail: &Listing| matches!(jail.state, JailState::Running | JailState::Exited);
    let (store, selection) = args.jails.select(IdMatch::PrefixReported, started)?;
    let with_id = args.any || selection.by_filter;
    let ids = selection.all_known()?;
    ids.iter().try_for_each(|id| check_started(&store, id))?;
    let deadline = until(args.timeout);
    let mut ends = store.ends(&ids)?;
    let mut known = BTreeMap::new();
    let mut printed = 0;
    let mut code = Code::Done.into();
    while let Some(stockade::End { id, how: ended, oom_kills }) = ends.next_end(deadline)? {
        if ended == ExitStatus::Unknown {
            info(&format!("jail '{id}' is not running, and the exit status of its VMM is unknown"));
            code = Code::Failed.into();
        }
        let described = ended.describe(oom_kills.as_ref());
        if described != ended.to_string() {
            info(&format!("the VMM of jail '{id}' has exited: {described}"));
        }
        if args.json {
            let code = (ended != ExitStatus::Unknown).then(|| ended.shell_code());
            print_json_line(&End { id: &id, ended, code, oom_kills: oom_kills.as_ref() })?;
        } else if with_id && ended != ExitStatus::Unknown {
            print(&format!("{id} {}\n", ended.shell_code()))?;
        }
        if args.any {
            return Ok(code);
        }
        known.insert(id, ended);
        // Prints in the order of the command line, each code as soon as the codes before it are known.
        while let Some(ended) = ids.get(printed).and_then(|id| known.get(id)) {
            if !args.json && !with_id && *ended != ExitStatus::Unknown {
                print(&format!("{}\n", ended.shell_code()))?;
            }
            printed += 1;
        }
    }
    let late: Vec<&str> = ends.waiting().map(JailId::as_str).collect();
    if let (Some(time), false) = (args.timeout, late.is_empty()) {
        let verb = if late.len() == 1 { "is" } else { "are" };
        info(&format!("{} {verb} still running after {} s", late.join(", "), time.as_secs_f64()));
        return Ok(Code::TimedOut.into());
    }
    Ok(code)
}

fn check_started(store: &Store, id: &JailId) -> Result<(), Failure> {
    match store.read(id)? {
        None => Err(no_such_jail(id)),
        Some(receipt) if receipt.vmm().is_none() => {
            Err(Failure::new(format!("jail '{id}' was not started; start it with `stockade start {id}`")))
        }
        Some(_) => Ok(()),
    }
}
