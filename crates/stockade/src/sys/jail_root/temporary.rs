//! Temporary names in a jail's tree.
//!
//! Something that is placed gets its name only when it is complete. Until then it has a random name, which the jail's
//! uid sees at once and can exchange. So the file that has the placement's name after the rename is compared with the
//! one that was created.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use crate::spec::HostPath;
use crate::sys::error::{Context, Operation, Result};
use crate::sys::file_id::FileId;
use crate::sys::open::open_path;
use crate::sys::own_name::temporary_name;
use crate::sys::remove_tree::remove;

/// The cause of an error if the jail's uid exchanged something that stockade was placing.
pub(crate) const EXCHANGED: Errno = Errno::STALE;

/// A random name in an open directory of the tree. When it is dropped, what has the name is removed.
pub(super) struct Temporary<'d> {
    directory: BorrowedFd<'d>,
    name: String,
    /// The path of the placement, for messages.
    at: HostPath,
}

impl<'d> Temporary<'d> {
    pub(super) fn new(directory: BorrowedFd<'d>, at: HostPath) -> Self {
        Self { directory, name: temporary_name(), at }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Gives the file its final name, and checks that it is this open file.
    ///
    /// # Errors
    /// Returns [`EXCHANGED`] if it is not; what has the final name is removed.
    pub(super) fn rename(self, name: &OsStr, file: BorrowedFd<'_>, flags: RenameFlags) -> Result<()> {
        match rustix::fs::renameat_with(self.directory, &self.name, self.directory, name, flags) {
            Err(Errno::NOENT) => return Err(EXCHANGED).context(Operation::Rename, &self.at),
            renamed => renamed.context(Operation::Rename, &self.at)?,
        }
        let expected = FileId::of(file).context(Operation::Inspect, &self.at)?;
        let found = open_path(self.directory, name).and_then(|found| FileId::of(found.as_fd()));
        if found == Ok(expected) {
            return Ok(());
        }
        remove(self.directory, name, &self.at);
        Err(EXCHANGED).context(Operation::Rename, &self.at)
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // After the rename this removes nothing, unless both names are hard links to one file: the rename does nothing
        // then.
        remove(self.directory, OsStr::new(&self.name), &self.at);
    }
}
