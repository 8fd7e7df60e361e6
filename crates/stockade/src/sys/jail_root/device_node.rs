//! Device nodes in a jail's tree.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, RenameFlags};
use rustix::io::Errno;
use rustix::path::Arg;
use stockade_syscalls::descriptors::fd_path;

use super::temporary::Temporary;
use super::{JailRoot, change_owner, open_path};
use crate::spec::{JailPath, Owner};
use crate::sys::error::{Context, Error, Operation, Result};

/// A device node to be created.
#[derive(Clone, Copy)]
pub(crate) struct Node {
    pub(crate) kind: FileType,
    pub(crate) device: u64,
    pub(crate) mode: Mode,
    pub(crate) owner: Owner,
}

impl Node {
    fn make(&self, parent: BorrowedFd<'_>, name: impl Arg) -> std::result::Result<(), Errno> {
        rustix::fs::mknodat(parent, name, self.kind, self.mode, self.device)
    }
}

impl JailRoot {
    /// Creates a device node, and replaces an existing node, file or symbolic link.
    pub(crate) fn make_node(&self, path: &JailPath, node: &Node) -> Result<()> {
        if self.private.get() {
            return self.make_private_node(path, node);
        }
        let (parent, name) = self.parent(path)?;
        match node.make(parent.as_fd(), name) {
            Err(Errno::EXIST) => self.replace_by_node(parent.as_fd(), path, node),
            created => {
                created.context(Operation::MakeNode, path)?;
                self.change_node_owner(parent.as_fd(), name, node, path).map(drop)
            }
        }
    }

    fn make_private_node(&self, path: &JailPath, node: &Node) -> Result<()> {
        let at = self.host_path(path);
        node.make(self.root(), path.relative()).context(Operation::MakeNode, path)?;
        if self.exact {
            rustix::fs::chmodat(self.root(), path.relative(), node.mode, AtFlags::empty())
                .context(Operation::ChangeMode, &at)?;
        }
        self.change_owner_by_path(path, node.owner).context(Operation::ChangeOwner, &at)
    }

    /// Creates the node under a temporary name beside the existing file, and renames it over that.
    fn replace_by_node(&self, parent: BorrowedFd<'_>, path: &JailPath, node: &Node) -> Result<()> {
        let temporary = Temporary::new(parent, self.host_path(path));
        node.make(parent, temporary.name()).context(Operation::MakeNode, path)?;
        let created = self.change_node_owner(parent, OsStr::new(temporary.name()), node, path)?;
        match temporary.rename(path.split().1, created.as_fd(), RenameFlags::empty()) {
            // A directory is in the way.
            Err(Error { cause: Errno::ISDIR, .. }) => Err(Errno::EXIST).context(Operation::MakeNode, path),
            renamed => renamed,
        }
    }

    /// Gives the new node its owner.
    ///
    /// The directory may belong to the jail's uid, which may have put another file under the name, even a
    /// hard link to a file of the host. Only the very node is touched.
    fn change_node_owner(
        &self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        node: &Node,
        path: &JailPath,
    ) -> Result<OwnedFd> {
        let at = self.host_path(path);
        let opened = open_path(parent, name).context(Operation::Open, &at)?;
        let found = rustix::fs::fstat(&opened).context(Operation::Inspect, &at)?;
        let same = FileType::from_raw_mode(found.st_mode) == node.kind
            && found.st_rdev == node.device
            && found.st_nlink == 1;
        if !same {
            return Err(Errno::EXIST).context(Operation::MakeNode, path);
        }
        if self.exact && found.st_mode & 0o7777 != node.mode.as_raw_mode() {
            // The umask removed some bits. fchmod(2) does not accept an O_PATH file descriptor.
            rustix::fs::chmod(fd_path(&opened), node.mode).context(Operation::ChangeMode, &at)?;
        }
        change_owner(opened.as_fd(), node.owner).context(Operation::ChangeOwner, &at)?;
        Ok(opened)
    }
}
