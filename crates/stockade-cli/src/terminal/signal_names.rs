//! Names of signals.

use rustix::process::Signal;

pub(crate) fn parse(text: &str) -> Option<Signal> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let by_name = SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal);
    let by_number =
        || name.parse().ok().filter(|number| (1..32).contains(number)).and_then(Signal::from_named_raw);
    by_name.or_else(by_number)
}

/// The name of a signal, such as `SIGTERM`.
pub(crate) fn name(signal: Signal) -> String {
    let known = SIGNALS.iter().find(|(_, known)| *known == signal);
    known.map_or_else(|| format!("signal {}", signal.as_raw()), |(name, _)| format!("SIG{name}"))
}

/// The signals with a name, without `SIG`.
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
