//! `stockade kill`: a signal for VMMs.

use std::process::ExitCode;

use clap::Args;
use rustix::process::Signal;
use stockade::{Error, JailState, Listing};

use crate::output::{Failure, require_root};
use crate::select::{Naming, SelectArgs};

/// Arguments of `kill`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stockade kill -s TERM vm-1
  stockade kill --filter 'id=test-*'")]
pub(crate) struct KillArgs {
    /// The signal, by name or number.
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    #[command(flatten)]
    pub(crate) jails: SelectArgs,
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

/// Sends the signal to each, and tells of those to which it cannot be sent.
pub(crate) fn kill(args: &KillArgs) -> Result<ExitCode, Failure> {
    let signal = args.signal()?;
    require_root("kill")?;
    let runs = |jail: &Listing| jail.state == JailState::Running;
    let (store, chosen) = args.jails.choose(Naming::Whole, runs)?;
    let (ids, mut code) = chosen.known();
    for id in &ids {
        let sent = store.watch(id).and_then(|vmm| vmm.map(|vmm| vmm.signal(signal)).transpose());
        match sent {
            Ok(Some(())) => (),
            Ok(None) => code = Failure::from(Error::NotRunning(id.clone())).tell(),
            Err(error) => code = Failure::from(error).tell(),
        }
    }
    Ok(code)
}

/// What a signal is called, as in `SIGTERM`.
pub(crate) fn name(signal: Signal) -> String {
    let known = SIGNALS.iter().find(|(_, known)| *known == signal);
    known.map_or_else(|| format!("signal {}", signal.as_raw()), |(name, _)| format!("SIG{name}"))
}

/// Those that have a name here.
pub(crate) const SIGNALS: &[(&str, Signal)] = &[
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
