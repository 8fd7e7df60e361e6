//! A file or directory of the host, attached in the mount namespace of a jail.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use serde::{Deserialize, Serialize};
use stockade_syscalls::descriptors::above_standard;
use stockade_syscalls::mounts::detached;

use super::EntryError;
use crate::spec::{HostPath, JailPath};
use crate::sys::error::{Context, Operation};

/// A file or directory of the host itself in the jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Where it is on the host.
    pub source: HostPath,
    /// What was found there when this was decided, and has to be there still when it is attached.
    pub inode: Inode,
    /// Where it is attached in the jail; missing folders on the way are made.
    pub path: JailPath,
    /// Whether nothing can be written through it.
    pub read_only: bool,
}

/// A file or directory, whatever its name is by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inode {
    /// The filesystem.
    pub device: u64,
    /// Its number there.
    pub number: u64,
    /// Whether it is a directory; a file otherwise.
    pub directory: bool,
}

impl Inode {
    pub(crate) fn of(facts: &Stat) -> Self {
        let directory = FileType::from_raw_mode(facts.st_mode).is_dir();
        Self { device: facts.st_dev, number: facts.st_ino, directory }
    }
}

impl Bind {
    /// The mount, attached nowhere yet.
    pub(crate) fn detached(&self) -> Result<OwnedFd, EntryError> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let source = rustix::fs::openat2(CWD, self.source.as_path(), flags, Mode::empty(), resolve)
            .context(Operation::OpenPlaced, &self.source)?;
        let found = rustix::fs::fstat(&source).context(Operation::Inspect, &self.source)?;
        if Inode::of(&found) != self.inode {
            return Err(EntryError::Exchanged(self.source.clone()));
        }
        let mount = detached(source.as_fd(), self.read_only).and_then(above_standard);
        Ok(mount.context(Operation::Bind, &self.source)?)
    }
}
