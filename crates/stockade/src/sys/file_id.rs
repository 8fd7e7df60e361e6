//! The identity of a file, a directory or a namespace, independent of its names.

use std::os::fd::AsFd;

use rustix::fs::Stat;
use rustix::io::Errno;

/// A device number and an inode number. No two files that exist at the same time have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The identity of an open file.
    pub(crate) fn of(file: impl AsFd) -> Result<Self, Errno> {
        rustix::fs::fstat(file).map(|facts| Self::from(&facts))
    }

    /// The identity of the file at this path, or of the one that a symbolic link there leads to.
    pub(crate) fn at(path: impl rustix::path::Arg) -> Result<Self, Errno> {
        rustix::fs::stat(path).map(|facts| Self::from(&facts))
    }

    /// The identity of what has this name, also of a symbolic link.
    pub(crate) fn of_name(path: impl rustix::path::Arg) -> Result<Self, Errno> {
        rustix::fs::lstat(path).map(|facts| Self::from(&facts))
    }
}

impl From<&Stat> for FileId {
    fn from(facts: &Stat) -> Self {
        Self { device: facts.st_dev, inode: facts.st_ino }
    }
}
