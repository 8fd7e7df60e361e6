//! The system calls that stockade needs and rustix lacks.
//!
//! All unsafe code of the project is in this crate. The crate provides mechanism and no policy: its callers
//! decide what to call, in which order and with which arguments.
//!
//! * [`call`]: one action that a process performs on itself
//! * [`program`]: the actions of a process between `clone` and `exec`, as data
//! * `capabilities`: dropping capabilities irrevocably
//! * [`descriptors`]: file descriptors above the standard streams
//! * [`execute`]: becoming another program than the jail's own
//! * [`features`]: whether the kernel has the features that jails need
//! * [`filter`]: a filter of system calls for a process that is root in a jail
//! * [`inherited`]: what a process inherits, put to a documented state
//! * [`spawn`]: `clone3` of a child that carries out a program
//! * [`monitor`]: the same through a small process that stays behind as the parent
//! * [`mount_table`]: the mounts that a process sees
//! * [`mounts`]: a mount that is attached nowhere yet, and the mount namespace of another process
//! * [`namespace`]: a new network namespace for a process that stays in its own
//! * [`sealed`]: programs in memory that are executed and never read
//! * [`signals`]: signals as a file descriptor that can be polled
//! * [`mod@start`]: the beginning of a program without the standard library's runtime

pub mod call;
mod capabilities;
mod copy;
pub mod descriptors;
pub mod execute;
pub mod features;
pub mod filter;
pub mod inherited;
pub mod monitor;
pub mod mount_table;
pub mod mounts;
pub mod namespace;
pub mod program;
pub mod sealed;
pub mod signals;
pub mod spawn;
pub mod start;

#[cfg(feature = "probe")]
pub mod attack;
#[cfg(feature = "probe")]
pub mod attempt;
#[cfg(feature = "probe")]
pub mod guest;
#[cfg(feature = "probe")]
pub mod inject;
#[cfg(feature = "probe")]
pub mod state;
