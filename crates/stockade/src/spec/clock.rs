//! Clocks: of specifications, of receipts, and of processes.

use std::time::{SystemTime, UNIX_EPOCH};

/// `CLOCK_MONOTONIC` in microseconds.
pub(crate) fn monotonic_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1_000
}

/// `CLOCK_BOOTTIME` in nanoseconds.
pub(crate) fn since_boot_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The present time in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    unix_ms(SystemTime::now()).unwrap_or_default()
}

/// A time in milliseconds since 1970; `None` if it is before.
pub(crate) fn unix_ms(time: SystemTime) -> Option<u64> {
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}
