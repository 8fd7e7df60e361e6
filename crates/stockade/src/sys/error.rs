//! The error of an operation on a kernel object.

use std::fmt;

use rustix::io::Errno;

pub(crate) use crate::spec::errno;

/// The result of an operation on a kernel object.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to {operation} {argument}: {cause}")]
pub(crate) struct Error {
    pub(crate) operation: Operation,
    /// The path, or the pid.
    pub(crate) argument: String,
    pub(crate) cause: Errno,
}

/// An operation on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Create a directory, or open it.
    CreateDirectory,
    /// Open a file or directory.
    Open,
    /// Open a file that is placed into the jail, or its source.
    OpenPlaced,
    /// Read a file.
    Read,
    /// Write a file.
    Write,
    /// Copy a file into the jail.
    Copy,
    /// Create a hard link in the jail.
    Link,
    /// Change the owner of a file.
    ChangeOwner,
    /// Change the mode of a file.
    ChangeMode,
    /// Create a device node.
    MakeNode,
    /// Read the attributes of a file.
    Inspect,
    /// Mark a directory as created by stockade.
    Mark,
    /// Read the mark of a directory.
    ReadMark,
    /// Clone a mount of a file or directory of the host.
    Bind,
    /// Mount a filesystem.
    Mount,
    /// Unmount a filesystem.
    Unmount,
    /// Remove a file or directory.
    Remove,
    /// Rename a file.
    Rename,
    /// Create a network namespace.
    CreateNetns,
    /// Create the template mount namespace.
    CreateTemplateMounts,
    /// Copy the value of a cgroup file from the parent cgroup.
    InheritCgroup,
    /// Start a process.
    Spawn,
    /// Wait for a process.
    Wait,
    /// Watch a directory for changes.
    Watch,
    /// Send a signal.
    Kill,
    /// Lock a jail.
    Lock,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CreateDirectory => "create directory",
            Self::Open | Self::OpenPlaced => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::Copy => "copy",
            Self::Link => "link",
            Self::ChangeOwner => "change the owner of",
            Self::ChangeMode => "change the mode of",
            Self::MakeNode => "make device node",
            Self::Inspect => "inspect",
            Self::Mark => "mark",
            Self::ReadMark => "read the mark of",
            Self::Bind => "bind",
            Self::Mount => "mount",
            Self::Unmount => "unmount",
            Self::Remove => "remove",
            Self::Rename => "rename",
            Self::CreateNetns => "create network namespace",
            Self::CreateTemplateMounts => "create the template mount namespace in",
            Self::InheritCgroup => "inherit the parent's value of",
            Self::Spawn => "start a process for",
            Self::Wait => "wait for",
            Self::Watch => "watch",
            Self::Kill => "kill",
            Self::Lock => "lock",
        })
    }
}

/// Turns a bare cause into an error that names the operation and its argument.
pub(crate) trait Context<T> {
    /// Adds the operation and its argument.
    fn context(self, operation: Operation, argument: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Cause>> Context<T> for std::result::Result<T, E> {
    fn context(self, operation: Operation, argument: impl fmt::Display) -> Result<T> {
        self.map_err(|cause| Error { operation, argument: argument.to_string(), cause: cause.into().0 })
    }
}

/// An error of the kernel, from `rustix` or from `std`.
pub(crate) struct Cause(Errno);

impl From<Errno> for Cause {
    fn from(errno: Errno) -> Self {
        Self(errno)
    }
}

impl From<std::io::Error> for Cause {
    fn from(error: std::io::Error) -> Self {
        Self(errno(&error))
    }
}
