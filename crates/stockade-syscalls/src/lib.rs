//! The system calls that stockade needs and rustix lacks.
//!
//! All unsafe code of the project is in this crate. The crate provides mechanism and no policy: its callers
//! decide what to call, in which order and with which arguments.
//!
//! * [`call`]: one action that a process performs on itself
//! * [`program`]: the actions of a process between `clone` and `exec`, as data
//! * `capabilities`: dropping capabilities irrevocably
//! * [`descriptors`]: file descriptors above the standard streams
//! * [`execute`]: executing any program in a jail through the executor
//! * [`features`]: probes for the system calls that jails need
//! * [`filter`]: a seccomp filter for a process that is root in a jail
//! * [`inherited`]: resetting inherited state to documented values
//! * [`spawn`]: `clone3` of a child that runs a program
//! * [`monitor`]: the same with the monitor as the child's parent
//! * [`mount_table`]: the mounts that a process sees
//! * [`mounts`]: detached mounts, and the mount namespaces of other processes
//! * [`namespace`]: the files of namespaces, and creating namespaces without entering them
//! * [`poll`]: waiting for file descriptors until a deadline
//! * [`sealed`]: programs in memory that can be executed and not read
//! * [`signals`]: signals as a pollable file descriptor
//! * [`subvolume`]: subvolumes of btrfs
//! * [`mod@start`]: the start of a program without the standard library's runtime
//! * [`user`]: looking at processes with the rights of another user

pub mod call;
mod capabilities;
pub mod children;
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
pub mod poll;
pub mod program;
pub mod sealed;
pub mod signals;
pub mod spawn;
pub mod start;
pub mod subvolume;
pub mod user;

#[cfg(feature = "probe")]
pub mod attack;
#[cfg(feature = "probe")]
pub mod attempt;
#[cfg(feature = "probe")]
pub mod guest;
#[cfg(feature = "probe")]
pub mod inject;
#[cfg(feature = "probe")]
pub mod launcher;
#[cfg(feature = "probe")]
pub mod state;
