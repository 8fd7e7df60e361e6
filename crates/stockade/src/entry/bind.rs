//! Binds: files and directories of the host, attached in a jail's mount namespace.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use serde::{Deserialize, Serialize};
use stockade_syscalls::descriptors::above_standard;
use stockade_syscalls::mounts::detached;

use super::EntryError;
use crate::spec::{HostPath, JailPath};
use crate::sys::error::{Context, Operation};

/// A file or directory of the host itself, attached in the jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// The path on the host.
    pub source: HostPath,
    /// The planned file or directory. If `source` names another one by the time of attaching, the bind fails.
    pub inode: Inode,
    /// The path in the jail. Missing directories on the way are created.
    pub path: JailPath,
    /// Whether the bind is mounted read-only.
    pub read_only: bool,
}

/// The identity of a file or directory, independent of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inode {
    /// The device number of its filesystem.
    pub device: u64,
    /// Its inode number.
    pub number: u64,
    /// Whether it is a directory; otherwise it is a file.
    pub directory: bool,
}

impl Inode {
    pub(crate) fn of(facts: &Stat) -> Self {
        let directory = FileType::from_raw_mode(facts.st_mode).is_dir();
        Self { device: facts.st_dev, number: facts.st_ino, directory }
    }
}

impl Bind {
    /// Creates the mount without attaching it.
    ///
    /// # Errors
    /// Returns `Exchanged` if the source is not the planned file or directory, `Sys` if the kernel refuses a call.
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
