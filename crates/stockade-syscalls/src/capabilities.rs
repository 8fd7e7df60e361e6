//! Dropping capabilities irrevocably.

use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::program::last_errno;

/// The securebits from `linux/securebits.h`. The lock of each is the next higher bit.
const NOROOT: u32 = 1 << 0;
const NO_SETUID_FIXUP: u32 = 1 << 2;
const KEEP_CAPS: u32 = 1 << 4;
const NO_CAP_AMBIENT_RAISE: u32 = 1 << 6;
const LOCKED: [u32; 4] = [NOROOT, NO_SETUID_FIXUP, KEEP_CAPS, NO_CAP_AMBIENT_RAISE];

/// Removes all capabilities but `kept` from the bounding set, and locks the securebits.
///
/// No later program can regain the removed capabilities. If `kept` is empty, uid 0 has no privileges
/// (`SECBIT_NOROOT`). Otherwise uid 0 has at most `kept`.
///
/// # Errors
/// Returns EPERM without CAP_SETPCAP.
pub(crate) fn bound(kept: CapabilitySet) -> Result<(), Errno> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if !kept.contains(one) {
            match rustix::thread::remove_capability_from_bounding_set(one) {
                Ok(()) => (),
                // The first capability that this kernel does not know.
                Err(Errno::INVAL) if number > 0 => break,
                Err(cause) => return Err(cause),
            }
        }
    }
    let root = if kept.is_empty() { NOROOT } else { 0 };
    lock_securebits(root | NO_CAP_AMBIENT_RAISE)
}

/// Sets the securebits to `wanted` and locks them. Locked ones stay as they are.
fn lock_securebits(wanted: u32) -> Result<(), Errno> {
    let now = prctl(libc::PR_GET_SECUREBITS, 0)?;
    match locked(now, wanted) {
        same if same == now => Ok(()),
        bits => prctl(libc::PR_SET_SECUREBITS, bits).map(drop),
    }
}

/// Computes the new securebits from the current ones.
fn locked(now: u32, wanted: u32) -> u32 {
    (0..u32::BITS).step_by(2).fold(0, |bits, at| {
        let (bit, lock) = (1 << at, 2 << at);
        if now & lock != 0 {
            bits | (now & bit) | lock
        } else if LOCKED.contains(&bit) {
            bits | (wanted & bit) | lock
        } else {
            // Newer kernels have bits for script interpreters, which jails do not use.
            bits
        }
    })
}

/// Keeps exactly `kept` as permitted and effective. Clears the inheritable set, and with it the ambient set.
pub(crate) fn keep(kept: CapabilitySet) -> Result<(), Errno> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: none };
    rustix::thread::set_capabilities(None, sets)
}

/// Clears the inheritable set, and with it the ambient set. The permitted and effective sets stay.
pub(crate) fn clear_inheritable() -> Result<(), Errno> {
    let now = rustix::thread::capabilities(None)?;
    rustix::thread::set_capabilities(None, CapabilitySets { inheritable: CapabilitySet::empty(), ..now })
}

/// Prevents every later exec from adding privileges.
pub(crate) fn no_new_privileges() -> Result<(), Errno> {
    rustix::thread::set_no_new_privs(true)
}

fn prctl(option: i32, argument: u32) -> Result<u32, Errno> {
    let (argument, nothing): (libc::c_ulong, libc::c_ulong) = (argument.into(), 0);
    // SAFETY: neither option takes a pointer.
    let answer = unsafe { libc::prctl(option, argument, nothing, nothing, nothing) };
    u32::try_from(answer).map_err(|_| last_errno())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn securebits_are_locked_and_locked_ones_stay() {
        let wanted = NOROOT | NO_CAP_AMBIENT_RAISE;
        assert_eq!(locked(0, wanted), 0b1110_1011);
        assert_eq!(locked(NO_SETUID_FIXUP | KEEP_CAPS, wanted), 0b1110_1011, "unlocked ones are cleared");
        assert_eq!(locked(NO_SETUID_FIXUP | (NO_SETUID_FIXUP << 1), wanted), 0b1110_1111);
        assert_eq!(locked(0x100, wanted), 0b1110_1011);
        assert_eq!(locked(0x300, wanted), 0x300 | 0b1110_1011);
    }
}
