//! The VMM of the benches: prints the monotonic time at its first instruction, and exits. With the argument `stay` it
//! runs until it is killed.

#![no_main]

use std::io::Write;

use rustix::time::{ClockId, clock_gettime};

stockade_syscalls::start!(run);

fn run() -> u8 {
    let now = clock_gettime(ClockId::Monotonic);
    let line = format!("{}\n", now.tv_sec * 1_000_000_000 + now.tv_nsec);
    let written = std::io::stdout().write_all(line.as_bytes());
    if std::env::args().any(|argument| argument == "stay") {
        loop {
            // Waits for a signal.
            let _ = rustix::event::poll(&mut [], None);
        }
    }
    u8::from(written.is_err())
}
