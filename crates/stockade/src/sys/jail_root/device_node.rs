//! Device nodes in a tree.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{INSIDE, JailRoot, change_owner};
use crate::spec::{JailPath, Owner};
use crate::sys::error::{Context, Operation, Result};

/// A device node to be made.
#[derive(Clone, Copy)]
pub(crate) struct Node {
    pub(crate) kind: FileType,
    pub(crate) device: u64,
    pub(crate) mode: Mode,
    pub(crate) owner: Owner,
}

impl JailRoot {
    /// Makes a device node, replacing a node, file or link that is there.
    ///
    /// # Arguments
    /// `temporary` gives a name that nobody else uses.
    pub(crate) fn make_node(
        &self,
        path: &JailPath,
        temporary: impl FnOnce() -> String,
        node: &Node,
    ) -> Result<()> {
        let at = self.host_path(path);
        if self.private.get() {
            rustix::fs::mknodat(self.root(), path.relative(), node.kind, node.mode, node.device)
                .context(Operation::MakeNode, path)?;
            if self.exact {
                rustix::fs::chmodat(self.root(), path.relative(), node.mode, AtFlags::empty())
                    .context(Operation::ChangeMode, &at)?;
            }
            return self.change_owner_by_path(path, node.owner).context(Operation::ChangeOwner, &at);
        }
        let (parent, name) = self.parent(path)?;
        let make = |name: &OsStr| rustix::fs::mknodat(&parent, name, node.kind, node.mode, node.device);
        match make(name) {
            Err(Errno::EXIST) => (),
            made => {
                made.context(Operation::MakeNode, path)?;
                return self.change_node_owner(parent.as_fd(), name, node, path);
            }
        }
        // Beside what is there, and then in its place.
        let temporary = temporary();
        let aside = OsStr::new(&temporary);
        let _ = rustix::fs::unlinkat(&parent, aside, AtFlags::empty());
        make(aside).context(Operation::MakeNode, path)?;
        let complete = || {
            self.change_node_owner(parent.as_fd(), aside, node, path)?;
            rustix::fs::renameat(&parent, aside, &parent, name)
                // A folder is in the way.
                .map_err(|cause| if cause == Errno::ISDIR { Errno::EXIST } else { cause })
                .context(Operation::MakeNode, path)
        };
        complete().inspect_err(|_| {
            let _ = rustix::fs::unlinkat(&parent, aside, AtFlags::empty());
        })
    }

    /// Gives away the node just made. The folder may belong to the jail's uid, which may have put another file
    /// there meanwhile, even a hard link to one of the host's: nothing but that very node is touched.
    fn change_node_owner(
        &self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        node: &Node,
        path: &JailPath,
    ) -> Result<()> {
        let at = self.host_path(path);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made =
            rustix::fs::openat2(parent, name, flags, Mode::empty(), INSIDE).context(Operation::Open, &at)?;
        let found = rustix::fs::fstat(&made).context(Operation::Inspect, &at)?;
        let same = FileType::from_raw_mode(found.st_mode) == node.kind
            && found.st_rdev == node.device
            && found.st_nlink == 1;
        if !same {
            return Err(Errno::EXIST).context(Operation::MakeNode, path);
        }
        if self.exact && found.st_mode & 0o7777 != node.mode.as_raw_mode() {
            // The umask has taken something away; a descriptor like this one has no other way to its mode.
            rustix::fs::chmod(format!("/proc/self/fd/{}", made.as_raw_fd()), node.mode)
                .context(Operation::ChangeMode, &at)?;
        }
        change_owner(made.as_fd(), node.owner).context(Operation::ChangeOwner, &at)
    }
}
