//! `stockade kill`: a signal for VMMs.

use std::process::ExitCode;

use clap::Args;
use rustix::process::Signal;

use crate::jails::{IdsArgs, no_jail};
use crate::output::{Failure, require_root};

/// Arguments of `kill`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  stockade kill -s TERM vm-1")]
pub(crate) struct KillArgs {
    /// The signal, by name or number.
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    #[command(flatten)]
    pub(crate) jails: IdsArgs,
}

impl KillArgs {
    pub(crate) fn signal(&self) -> Result<Signal, Failure> {
        let name = self.signal.to_ascii_uppercase();
        let name = name.strip_prefix("SIG").unwrap_or(&name);
        let by_name = SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal);
        let by_number =
            || name.parse().ok().filter(|number| (1..32).contains(number)).and_then(Signal::from_named_raw);
        by_name
            .or_else(by_number)
            .ok_or_else(|| Failure::new(format!("--signal: {} is not a signal", self.signal)))
    }
}

pub(crate) fn kill(args: &KillArgs) -> Result<ExitCode, Failure> {
    let signal = args.signal()?;
    require_root("kill")?;
    let (store, ids) = args.jails.store_and_ids()?;
    for id in &ids {
        match store.watch(id)? {
            Some(watched) => watched.signal(signal)?,
            None if store.read(id)?.is_none() => return Err(no_jail(id)),
            None => return Err(Failure::new(format!("jail {id} does not run"))),
        }
    }
    Ok(ExitCode::SUCCESS)
}

const SIGNALS: &[(&str, Signal)] = &[
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("TERM", Signal::TERM),
    ("CONT", Signal::CONT),
    ("STOP", Signal::STOP),
];
