//! The enter steps as data, and their compilation to a program that a child runs.

mod argument;
mod attributes;
mod bind;
mod interpreter;
pub(crate) mod program;
mod step;

use rustix::io::Errno;

pub use argument::Argument;
pub use bind::{Bind, Inode};
pub(crate) use interpreter::missing_interpreter;
pub use step::EnterStep;
pub(crate) use step::InExec;

use crate::spec::HostPath;
use crate::sys;

/// Why a process cannot enter a jail.
#[derive(Debug)]
pub(crate) enum EntryError {
    /// A file that the program needs cannot be opened.
    Sys(sys::error::Error),
    /// The source of a bind is not the planned file or directory.
    Exchanged(HostPath),
    /// The process failed at this step.
    Failed { step: Box<EnterStep>, cause: Errno },
}

impl From<sys::error::Error> for EntryError {
    fn from(error: sys::error::Error) -> Self {
        Self::Sys(error)
    }
}
