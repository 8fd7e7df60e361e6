//! SIGTERM that has no effect on a process, and the kernel's reason.

use std::fmt;

use rustix::process::Signal;

use crate::sys::procfs::field;

/// Why SIGTERM has no effect on a VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheeded {
    /// The kernel drops it: the VMM is the first process of its pid namespace and does not catch it. To any other process
    /// this signal would be fatal, so nothing is gained by a grace period.
    Dropped,
    /// The VMM ignores it. It may exit for another reason, for example because its guest shuts down.
    Ignored,
}

impl fmt::Display for Unheeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dropped => {
                "is the first process of its pid namespace and does not catch SIGTERM, so the kernel drops it"
            }
            Self::Ignored => "ignores SIGTERM",
        })
    }
}

/// Why a signal has no effect on the process with this `/proc/PID/status`; `None` if it has one, or if that is unknown.
pub(crate) fn unheeded(status: &str, signal: Signal) -> Option<Unheeded> {
    let bit = 1_u64 << (signal.as_raw() - 1);
    let has = |name: &str| u64::from_str_radix(field(status, name), 16).ok().map(|set| set & bit != 0);
    // A blocked signal stays pending, for `signalfd`, `sigwait` or another thread.
    if has("SigBlk")? || has("SigCgt")? {
        return None;
    }
    if has("SigIgn")? {
        return Some(Unheeded::Ignored);
    }
    let is_first = field(status, "NSpid").split_whitespace().next_back() == Some("1");
    is_first.then_some(Unheeded::Dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dropped_or_ignored_signal_is_unheeded() {
        let of = |pids: &str, blocked: &str, ignored: &str, caught: &str| {
            let status =
                format!("NSpid:\t{pids}\nSigBlk:\t{blocked}\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\n");
            unheeded(&status, Signal::TERM)
        };
        let (none, term) = ("0000000000000000", "0000000000004000");
        assert_eq!(of("70\t1", none, none, none), Some(Unheeded::Dropped));
        assert_eq!(of("70\t1", none, none, term), None);
        assert_eq!(of("70\t1", term, none, none), None);
        assert_eq!(of("70\t1", none, term, none), Some(Unheeded::Ignored));
        assert_eq!(of("70", none, term, none), Some(Unheeded::Ignored));
        assert_eq!(of("70", term, term, none), None);
        assert_eq!(of("70", none, none, none), None);
        assert_eq!(of("70\t2", none, none, none), None);
        assert_eq!(of("70\t1", "", none, none), None, "what cannot be read may be caught");
    }
}
