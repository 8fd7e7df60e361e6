//! `stockade start`: starts the VMMs of created jails.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use stockade::spec::{JailId, JailPath};
use stockade::{Error, Jail, JailState, Listing, Running, Store};

use crate::batch::template_mounts::ensure_template_mounts;
use crate::errors::hints;
use crate::flags::lookup::{open, stopped_jail};
use crate::flags::ready::ReadyArgs;
use crate::select::{IdMatch, SelectArgs, Selection};
use crate::terminal::output::{Failure, ignore_closed_stdout, print, print_json, require_root, success_if};

/// Arguments of `start`.
#[derive(Debug, Args)]
#[command(
    after_help = "Prints the PID of the VMM. For several VMMs, prints the ID of each jail before the PID.

Examples:
  stockade start vm-1 --ready -- --config-file /vm.json
  stockade start --file jails.toml"
)]
pub(crate) struct StartArgs {
    #[command(flatten)]
    ready: ReadyArgs,
    #[command(flatten)]
    jails: SelectArgs,
    /// Print a JSON list of the started VMMs.
    #[arg(long)]
    json: bool,
    /// Arguments for the VMM, instead of those given to `create`.
    #[arg(last = true, value_name = "VMM ARGUMENTS")]
    pub(crate) arguments: Vec<OsString>,
}

/// A started VMM, and the socket to wait for.
struct Started {
    id: JailId,
    running: Running,
    socket: Option<JailPath>,
}

/// A started VMM in the JSON output.
#[derive(Serialize)]
struct Row {
    id: JailId,
    pid: i32,
}

/// Starts the VMMs of the jails, and reports each failure.
pub(crate) fn start(args: &StartArgs) -> Result<ExitCode, Failure> {
    require_root("start")?;
    ensure_template_mounts();
    let is_created = |jail: &Listing| jail.state == JailState::Created;
    let (store, Selection { ids, unknown, single, .. }) = args.jails.select(IdMatch::Exact, is_created)?;
    let mut all = unknown.is_empty();
    let mut report = |failure: Failure| {
        failure.report();
        all = false;
    };
    unknown.into_iter().map(|(_, failure)| failure).for_each(&mut report);
    let mut started = Vec::new();
    // Starts all VMMs before it waits for any: each may take long to become ready.
    for id in ids {
        match launch(&store, id, args) {
            Ok(one) => started.push(one),
            Err(failure) => report(failure),
        }
    }
    let mut rows = Vec::new();
    for one in &mut started {
        match one.wait_ready(args) {
            Ok(()) if args.json => rows.push(one.row()),
            Ok(()) => ignore_closed_stdout(print(&one.line(single)))?,
            Err(failure) => report(failure),
        }
    }
    if args.json {
        print_json(&rows)?;
    }
    Ok(success_if(all))
}

fn launch(store: &Store, id: JailId, args: &StartArgs) -> Result<Started, Failure> {
    let mut jail = match open(store, &id)? {
        Jail::Created(jail) => jail,
        Jail::Running(running) => return Err(Error::Running { id, pid: running.pid() }.into()),
        Jail::Exited(stopped) | Jail::Abandoned(stopped) => return Err(stopped_jail(&stopped)),
    };
    if !args.arguments.is_empty() {
        jail.set_arguments(args.arguments.clone());
    }
    let spec = jail.receipt().spec.clone();
    let socket = args.ready.socket(&spec, "create the jail with another")?;
    let launched = jail.launch_monitored(args.ready.log_bytes()?);
    let running = launched.map_err(|error| hints::launch_failed(&error, &spec))?;
    Ok(Started { id, running, socket })
}

impl Started {
    fn wait_ready(&mut self, args: &StartArgs) -> Result<(), Failure> {
        match &self.socket {
            Some(socket) => Ok(self.running.wait_ready(socket, args.ready.timeout())?),
            None => Ok(()),
        }
    }

    fn row(&self) -> Row {
        Row { id: self.id.clone(), pid: self.running.pid() }
    }

    fn line(&self, single: bool) -> String {
        let pid = self.running.pid();
        if single { format!("{pid}\n") } else { format!("{} {pid}\n", self.id) }
    }
}
