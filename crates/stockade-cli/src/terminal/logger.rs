//! The level of messages on stderr: only errors, or each step too.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::Instant;

use log::{LevelFilter, Log, Metadata, Record};

use super::output::{be_quiet, escape_control};

/// Applies `--quiet` and `--verbose`.
pub(crate) fn set_up(quiet: bool, verbose: u8) {
    if quiet {
        be_quiet();
    }
    let level = match verbose {
        _ if quiet => LevelFilter::Off,
        0 => LevelFilter::Off,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    };
    if level == LevelFilter::Off {
        return;
    }
    START.get_or_init(Instant::now);
    // It cannot fail: no other logger is set.
    if log::set_logger(&StepLogger).is_ok() {
        log::set_max_level(level);
    }
}

static START: OnceLock<Instant> = OnceLock::new();

/// Prints a line for each step, with the milliseconds since the command began.
struct StepLogger;

impl Log for StepLogger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // Records of other libraries are no steps.
        if record.target().starts_with("stockade") {
            let since = START.get_or_init(Instant::now).elapsed().as_secs_f64() * 1000.0;
            let _ = writeln!(
                io::stderr(),
                "stockade: {since:8.2} ms  {}",
                escape_control(&record.args().to_string())
            );
        }
    }

    fn flush(&self) {}
}
