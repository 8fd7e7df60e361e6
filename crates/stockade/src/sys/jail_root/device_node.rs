//! Device nodes in a jail's tree.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;
use rustix::path::Arg;
use stockade_syscalls::descriptors::fd_path;

use super::{JailRoot, change_owner, open_path};
use crate::spec::{JailPath, Owner};
use crate::sys::error::{Context, Operation, Result};

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
    ///
    /// # Arguments
    /// `temporary` returns a unique name.
    pub(crate) fn make_node(
        &self,
        path: &JailPath,
        temporary: impl FnOnce() -> String,
        node: &Node,
    ) -> Result<()> {
        if self.private.get() {
            return self.make_private_node(path, node);
        }
        let (parent, name) = self.parent(path)?;
        match node.make(parent.as_fd(), name) {
            Err(Errno::EXIST) => self.replace_by_node(parent.as_fd(), path, OsStr::new(&temporary()), node),
            created => {
                created.context(Operation::MakeNode, path)?;
                self.change_node_owner(parent.as_fd(), name, node, path)
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
    fn replace_by_node(
        &self,
        parent: BorrowedFd<'_>,
        path: &JailPath,
        temporary: &OsStr,
        node: &Node,
    ) -> Result<()> {
        let _ = rustix::fs::unlinkat(parent, temporary, AtFlags::empty());
        node.make(parent, temporary).context(Operation::MakeNode, path)?;
        let complete = || {
            self.change_node_owner(parent, temporary, node, path)?;
            rustix::fs::renameat(parent, temporary, parent, path.split().1)
                // A directory is in the way.
                .map_err(|cause| if cause == Errno::ISDIR { Errno::EXIST } else { cause })
                .context(Operation::MakeNode, path)
        };
        complete().inspect_err(|_| {
            let _ = rustix::fs::unlinkat(parent, temporary, AtFlags::empty());
        })
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
    ) -> Result<()> {
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
        change_owner(opened.as_fd(), node.owner).context(Operation::ChangeOwner, &at)
    }
}
