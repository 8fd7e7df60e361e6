//! `stockade rm`: jails removed.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use stockade::spec::JailId;
use stockade::{Dead, Error, Jail, Prepared, Report, Running, Store, TeardownOptions};

use crate::jails::{IdsArgs, go_on, open};
use crate::output::{Failure, note, print, require_root};
use crate::run::tell_left;
use crate::stop::stop_together;

/// Arguments of `rm`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  stockade rm --force vm-1 vm-2")]
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
    let store = args.jails.state.store()?;
    if let Some(seconds) = args.timeout {
        stop_together(&store, &args.jails.ids, Duration::from_secs(seconds))?;
    }
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
    let options = TeardownOptions { unmount_foreign: force, ..TeardownOptions::default() };
    Ok(match open(store, id)? {
        Jail::Prepared(prepared) => Prepared::teardown_with(prepared, options)?,
        Jail::Dead(dead) => Dead::teardown_with(dead, options)?,
        Jail::Running(running) if force => Running::teardown_with(running, options)?,
        Jail::Running(running) => {
            let running = Error::Running { id: id.clone(), pid: running.pid() };
            return Err(Failure::new(format!("{running}; stop it first, or use --force")));
        }
    })
}
