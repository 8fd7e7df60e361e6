//! What the VMM's process does to itself: its steps as data, and the program that a child carries out.

mod argument;
mod attributes;
mod bind;
pub(crate) mod program;
mod step;

use rustix::io::Errno;

pub use argument::Argument;
pub use bind::{Bind, Inode};
pub use step::EnterStep;
pub(crate) use step::InExec;

use crate::spec::HostPath;
use crate::sys;

/// Why a process cannot enter a jail.
#[derive(Debug)]
pub(crate) enum EntryError {
    /// Something that the program needs cannot be opened.
    Sys(sys::error::Error),
    /// The source of a bind is not the file or directory that was planned.
    Exchanged(HostPath),
    /// The process failed at this step.
    Failed { step: Box<EnterStep>, cause: Errno },
}

impl From<sys::error::Error> for EntryError {
    fn from(error: sys::error::Error) -> Self {
        Self::Sys(error)
    }
}
