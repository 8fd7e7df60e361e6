//! The system calls that stockade needs and rustix lacks.
//!
//! This crate is the project's only home of unsafe code. It holds mechanism, no policy: what to call, in
//! which order and with which arguments is decided above.

#[cfg(feature = "probe")]
pub mod attempt;
#[cfg(feature = "probe")]
pub mod guest;
#[cfg(feature = "probe")]
pub mod mount_list;
