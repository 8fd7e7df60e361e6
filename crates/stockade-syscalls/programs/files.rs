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
pub const NEW_EXIT_STATUS: &CStr = c"ended.new";
