//! `stockade logs`: what a VMM has written.

use std::process::ExitCode;

use clap::Args;
use stockade::spec::JailId;

use crate::args::StateArgs;
use crate::jails::no_jail;
use crate::output::{Failure, note};

/// Arguments of `logs`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  stockade logs vm-1")]
pub(crate) struct LogsArgs {
    /// Name of the jail.
    pub(crate) id: JailId,
    #[command(flatten)]
    pub(crate) state: StateArgs,
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
