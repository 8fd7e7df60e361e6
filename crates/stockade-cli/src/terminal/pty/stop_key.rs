//! The key that ends `run` while all other keys are bytes for the VMM.

use std::time::{Duration, Instant};

/// Ctrl-]: no shell, editor or pager of a guest uses it more than once in a row.
const KEY: u8 = 0x1d;

/// How often it is pressed.
const TIMES: u8 = 3;

/// The time for all presses.
const WITHIN: Duration = Duration::from_secs(1);

/// How the operator reads it.
pub(super) const STOP_KEY: &str = "press Ctrl-] three times within a second to stop it";

/// The presses so far.
#[derive(Default)]
pub(super) struct StopKey {
    first: Option<Instant>,
    presses: u8,
}

impl StopKey {
    /// Whether this byte, typed at this time, is the last of the presses.
    pub(super) fn is_complete(&mut self, byte: u8, now: Instant) -> bool {
        if byte != KEY {
            *self = Self::default();
            return false;
        }
        match self.first {
            Some(first) if now.saturating_duration_since(first) <= WITHIN => self.presses += 1,
            Some(_) | None => *self = Self { first: Some(now), presses: 1 },
        }
        let is_complete = self.presses == TIMES;
        if is_complete {
            *self = Self::default();
        }
        is_complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_three_presses_in_a_row_and_in_time_are_complete() {
        let now = Instant::now();
        let typed = |bytes: &[u8], pause: Duration| {
            let mut key = StopKey::default();
            (0..).zip(bytes).filter(|(number, byte)| key.is_complete(**byte, now + pause * *number)).count()
        };
        let at_once = Duration::ZERO;
        assert_eq!(typed(b"\x1d\x1d", at_once), 0);
        assert_eq!(typed(b"a\x1d\x1d\x1d", at_once), 1);
        assert_eq!(typed(b"\x1d\x1da\x1d", at_once), 0);
        assert_eq!(typed(b"\x1d\x1d\x1d\x1d\x1d", at_once), 1);
        assert_eq!(typed(b"\x1d\x1d\x1d\x1d\x1d\x1d", at_once), 2);
        assert_eq!(typed(b"\x1d\x1d\x1d\x1d", Duration::from_millis(600)), 0);
    }
}
