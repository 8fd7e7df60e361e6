//! The files that the monitor writes into a jail's entry. The library includes this file too, so that both sides use
//! the same names.

use core::ffi::CStr;

/// The newer part of the VMM's output.
pub const LOG: &CStr = c"log";

/// The older part of the VMM's output.
pub const OLD_LOG: &CStr = c"log.1";

/// The VMM's exit status.
pub const EXIT_STATUS: &CStr = c"ended";

/// The exit status before its rename, so that a reader finds it whole or not at all.
///
/// The launcher creates it with [`RESERVED_RECORD`] bytes, which the monitor overwrites: a disk that has filled up since
/// then has room for it.
pub const NEW_EXIT_STATUS: &CStr = c"ended.new";

/// The number of bytes of output that could not be written to the log. The launcher creates it with [`RESERVED`]
/// zeros, and the monitor writes as many digits.
pub const LOST: &CStr = c"lost";

/// The size of the reserved exit status: `killed` or `exited`, a number, `oom` and a number.
pub const RESERVED_RECORD: usize = 48;

/// The size of the reserved count: as many bytes as the largest number has digits.
pub const RESERVED: usize = 20;
