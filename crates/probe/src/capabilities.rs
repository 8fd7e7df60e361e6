//! The capability sets of this process.

use crate::known::Known;
use rustix::io::{self, Errno};
use rustix::thread::CapabilitySet;
use serde::Serialize;

/// The five capability sets, each as a hexadecimal mask.
#[derive(Debug, Serialize)]
pub(crate) struct Capabilities {
    effective: Known<String>,
    permitted: Known<String>,
    inheritable: Known<String>,
    bounding: Known<String>,
    ambient: Known<String>,
}

impl Capabilities {
    pub(crate) fn read() -> Self {
        let sets = rustix::thread::capabilities(None);
        let set = |choose: fn(&rustix::thread::CapabilitySets) -> CapabilitySet| {
            sets.as_ref().map(|sets| mask(choose(sets).bits())).into()
        };
        Self {
            effective: set(|sets| sets.effective),
            permitted: set(|sets| sets.permitted),
            inheritable: set(|sets| sets.inheritable),
            bounding: collect(rustix::thread::capability_is_in_bounding_set).map(mask).into(),
            ambient: collect(rustix::thread::capability_is_in_ambient_set).map(mask).into(),
        }
    }
}

fn mask(bits: u64) -> String {
    format!("{bits:#x}")
}

/// Queries each capability up to the first that this kernel does not know.
fn collect(is_in: fn(CapabilitySet) -> io::Result<bool>) -> io::Result<u64> {
    let mut bits = 0;
    for number in 0..u64::BITS {
        let bit = 1 << number;
        match is_in(CapabilitySet::from_bits_retain(bit)) {
            Ok(true) => bits |= bit,
            Ok(false) => {}
            Err(Errno::INVAL) if number > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(bits)
}
