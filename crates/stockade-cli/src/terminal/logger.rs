//! How much is said on stderr: nothing but failures, or every step too.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::Instant;

use log::{LevelFilter, Log, Metadata, Record};

use super::output::{be_quiet, escape_control};

/// Sets up what `--quiet` and `--verbose` ask for.
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
    // There is no other logger.
    if log::set_logger(&StepLogger).is_ok() {
        log::set_max_level(level);
    }
}

static START: OnceLock<Instant> = OnceLock::new();

/// A line for each step, with the milliseconds since the command began.
struct StepLogger;

impl Log for StepLogger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // What other libraries have to say is of no use here.
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
