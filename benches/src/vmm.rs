//! The VMM of the benches: it writes what the monotonic clock says at its first instruction, and ends. With the
//! argument `stay` it stays until it is killed.

#![no_main]

use std::io::Write;

use rustix::time::{ClockId, clock_gettime};

stockade_syscalls::start!(run);

fn run() -> u8 {
    let now = clock_gettime(ClockId::Monotonic);
    let line = format!("{}\n", now.tv_sec * 1_000_000_000 + now.tv_nsec);
    let told = std::io::stdout().write_all(line.as_bytes());
    if std::env::args().any(|argument| argument == "stay") {
        loop {
            // Until a signal ends it.
            let _ = rustix::event::poll(&mut [], None);
        }
    }
    u8::from(told.is_err())
}
