//! Working in a tree that a hostile uid owns.
//!
//! Every path is opened beneath a file descriptor of the jail's root, without following symbolic links
//! (`openat2`). Whatever the jail's uid renames or replaces at the same time, by symbolic or hard links too,
//! nothing outside the tree is reached. At worst an operation fails.

mod device_node;
mod temporary;

use std::cell::Cell;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Uid};
use rustix::io::Errno;

pub(crate) use device_node::Node;
use stockade_syscalls::descriptors::{FIRST, copy_above_standard};
pub(crate) use temporary::EXCHANGED;
use temporary::Temporary;

use crate::spec::{HostPath, JailPath, Layout, Owner};
use crate::sys::directory_names::names;
use crate::sys::error::{Context, Error, Operation, Result};
use crate::sys::modes::{change_owner, set_mode_and_owner};
use crate::sys::obstacle::{
    Obstacle, is_in_read_only_subvolume, is_read_only_subvolume, make_subvolume_writable,
};
use crate::sys::open::{INSIDE, NEW_FILE, open_directory, open_path};
use crate::sys::own_name::is_own_name;
use crate::sys::remove_tree::{Removal, remove};
use crate::sys::{modes, mounts};

/// The open root of a jail.
#[derive(Debug)]
pub(crate) struct JailRoot {
    root: Arc<OwnedFd>,
    path: HostPath,
    /// Whether this process created the root, and only root can access it yet. No other process can have put anything
    /// there, so each file is created with one call, by its path from the root.
    private: Cell<bool>,
    /// Whether files and nodes get exactly their modes. In the drop-in the umask applies, as in Firecracker's jailer.
    exact: bool,
}

impl JailRoot {
    /// Opens the tree at the path `below` the base; `None` if it does not exist.
    pub(crate) fn open(base: &HostPath, below: &Path, exact: bool) -> Result<Option<Self>> {
        let path = base.join(below);
        let opened = open_directory(rustix::fs::CWD, base.as_path(), ResolveFlags::empty())
            .and_then(|base| open_directory(base.as_fd(), below.parent().unwrap_or(below), INSIDE))
            // A mount on the root is not the jail's.
            .and_then(|jail| {
                open_directory(jail.as_fd(), Path::new(Layout::ROOT), INSIDE | ResolveFlags::NO_XDEV)
            });
        match opened {
            Ok(root) => Ok(Some(Self::new(root, path, false, exact))),
            Err(Errno::NOENT) => Ok(None),
            Err(cause) => Err(cause).context(Operation::Open, path),
        }
    }

    pub(crate) fn new(root: OwnedFd, path: HostPath, private: bool, exact: bool) -> Self {
        Self { root: Arc::new(root), path, private: Cell::new(private), exact }
    }

    /// The root, to be shared with the process that enters it; its number is above the standard streams'.
    pub(crate) fn shared_root(&self) -> std::result::Result<Arc<OwnedFd>, Errno> {
        if self.root.as_raw_fd() >= FIRST {
            return Ok(Arc::clone(&self.root));
        }
        copy_above_standard(self.root()).map(Arc::new)
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The path on the host, for messages.
    pub(crate) fn host_path(&self, path: &JailPath) -> HostPath {
        self.path.join(path.relative())
    }

    /// Opens the directory that `path` is in, and returns the name in it.
    fn parent<'p>(&self, path: &'p JailPath) -> Result<(OwnedFd, &'p OsStr)> {
        let (parent, name) = path.split();
        let directory = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let opened = open_directory(self.root(), directory, INSIDE)
            .context(Operation::Open, self.path.join(parent))?;
        Ok((opened, name))
    }

    /// Opens the directory that `path` is in; `None` if it does not exist.
    pub(crate) fn directory_of(&self, path: &JailPath) -> Result<Option<OwnedFd>> {
        match self.parent(path) {
            Ok((directory, _)) => Ok(Some(directory)),
            Err(Error { cause: Errno::NOENT | Errno::NOTDIR, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a directory in an existing one, and sets its mode and owner. An existing directory is taken over.
    pub(crate) fn make_directory(&self, path: &JailPath, mode: u32, owner: Owner) -> Result<()> {
        let at = self.host_path(path);
        if *path == JailPath::root() {
            self.private.set(false);
            return set_mode_and_owner(self.root(), mode, owner, &at);
        }
        if self.private.get() {
            return self.make_private_directory(path, mode, owner, &at);
        }
        let (parent, name) = self.parent(path)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => (),
            Err(cause) => return Err(cause).context(Operation::CreateDirectory, at),
        }
        let directory = open_directory(parent.as_fd(), Path::new(name), INSIDE)
            .context(Operation::CreateDirectory, &at)?;
        set_mode_and_owner(directory.as_fd(), mode, owner, &at)
    }

    fn make_private_directory(&self, path: &JailPath, mode: u32, owner: Owner, at: &HostPath) -> Result<()> {
        let (name, mode) = (path.relative(), Mode::from_raw_mode(mode));
        rustix::fs::mkdirat(self.root(), name, mode).context(Operation::CreateDirectory, at)?;
        rustix::fs::chmodat(self.root(), name, mode, AtFlags::empty()).context(Operation::ChangeMode, at)?;
        self.change_owner_by_path(path, owner).context(Operation::ChangeOwner, at)
    }

    fn change_owner_by_path(&self, path: &JailPath, owner: Owner) -> std::result::Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::chownat(self.root(), path.relative(), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Creates the missing directories on the way to `path`, with mode 0700.
    pub(crate) fn make_parents(&self, path: &JailPath, owner: Owner) -> Result<()> {
        let missing: Vec<&Path> = path
            .split()
            .0
            .ancestors()
            .filter(|directory| !directory.as_os_str().is_empty())
            .take_while(|directory| {
                open_directory(self.root(), directory, INSIDE).is_err_and(|e| e == Errno::NOENT)
            })
            .collect();
        missing.into_iter().rev().try_for_each(|directory| {
            let directory = JailPath::new(directory).map_err(|_| Errno::INVAL);
            let directory = directory.context(Operation::CreateDirectory, &self.path)?;
            self.make_directory(&directory, 0o700, owner)
        })
    }

    /// Creates a file, and has `fill` write it. It appears under its name only when it is complete, and replaces an
    /// existing file.
    ///
    /// # Arguments
    /// `fill` gets the temporary path of the file, and the open file.
    ///
    /// # Errors
    /// Returns [`EXCHANGED`] if the jail's uid replaced the file in the meantime. Nothing has its name then.
    pub(crate) fn write_file<E: From<Error>>(
        &self,
        path: &JailPath,
        mode: u32,
        owner: Option<Owner>,
        fill: impl FnOnce(&JailPath, BorrowedFd<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let at = self.host_path(path);
        let (parent, name) = self.parent(path)?;
        let temporary = Temporary::new(parent.as_fd(), at.clone());
        let flags = Mode::from_raw_mode(mode);
        let target = rustix::fs::openat2(&parent, temporary.name(), NEW_FILE, flags, INSIDE)
            .context(Operation::OpenPlaced, &at)?;
        if let Some(owner) = owner {
            change_owner(target.as_fd(), owner).context(Operation::ChangeOwner, &at)?;
        }
        self.set_mode(target.as_fd(), mode, &at)?;
        fill(&path.beside(temporary.name()), target.as_fd())?;
        Ok(temporary.rename(name, target.as_fd(), RenameFlags::empty())?)
    }

    /// Whether this process created the root, and no other could access it yet.
    pub(crate) fn is_private(&self) -> bool {
        self.private.get()
    }

    /// Creates a file in a private tree under its own name, and has `fill` write it.
    pub(crate) fn write_private_file<E: From<Error>>(
        &self,
        path: &JailPath,
        mode: u32,
        owner: Owner,
        fill: impl FnOnce(BorrowedFd<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let at = self.host_path(path);
        let target = rustix::fs::openat(self.root(), path.relative(), NEW_FILE, Mode::from_raw_mode(mode))
            .context(Operation::OpenPlaced, &at)?;
        change_owner(target.as_fd(), owner).context(Operation::ChangeOwner, &at)?;
        self.set_mode(target.as_fd(), mode, &at)?;
        fill(target.as_fd())
    }

    /// Sets the mode of a new file, unless the umask is to apply.
    fn set_mode(&self, file: BorrowedFd<'_>, mode: u32, at: &HostPath) -> Result<()> {
        if self.exact { modes::set_mode(file, mode).context(Operation::ChangeMode, at) } else { Ok(()) }
    }

    /// Checks that `path` does not exist or is a regular file, which can be replaced.
    ///
    /// Returns false for a file with several hard links: the jail's uid may have linked a file of the host,
    /// to have that overwritten.
    pub(crate) fn expect_plain(&self, path: &JailPath) -> Result<bool> {
        let at = self.host_path(path);
        let found = match open_path(self.root(), path.relative()) {
            Err(Errno::NOENT) => return Ok(true),
            found => found.context(Operation::OpenPlaced, &at)?,
        };
        let facts = rustix::fs::fstat(&found).context(Operation::Inspect, &at)?;
        match FileType::from_raw_mode(facts.st_mode) {
            FileType::RegularFile => Ok(facts.st_nlink == 1),
            FileType::Symlink => Err(Errno::LOOP).context(Operation::OpenPlaced, &at),
            FileType::Directory => Err(Errno::ISDIR).context(Operation::OpenPlaced, &at),
            _ => Err(Errno::EXIST).context(Operation::OpenPlaced, &at),
        }
    }

    /// Creates a directory, and has `fill` fill it. It appears under its name, which must not exist, only when it is
    /// complete. Until then only root can access it.
    ///
    /// # Arguments
    /// `fill` gets the temporary path of the directory, and the open directory.
    ///
    /// # Errors
    /// Returns [`EXCHANGED`] if the jail's uid replaced the directory in the meantime. Nothing has its name then.
    pub(crate) fn write_directory<E: From<Error>>(
        &self,
        path: &JailPath,
        mode: u32,
        owner: Owner,
        fill: impl FnOnce(&JailPath, BorrowedFd<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let at = self.host_path(path);
        let (parent, name) = self.parent(path)?;
        let temporary = Temporary::new(parent.as_fd(), at.clone());
        rustix::fs::mkdirat(&parent, temporary.name(), Mode::RWXU)
            .context(Operation::CreateDirectory, &at)?;
        let resolve = INSIDE.union(ResolveFlags::NO_XDEV);
        let directory = open_directory(parent.as_fd(), Path::new(temporary.name()), resolve)
            .map_err(|cause| match cause {
                Errno::NOENT | Errno::NOTDIR | Errno::LOOP => EXCHANGED,
                cause => cause,
            })
            .context(Operation::CreateDirectory, &at)?;
        // The jail's uid may have replaced it by a directory of its own, but cannot create one that belongs
        // to root. The umask may have removed bits, so the mode is not compared exactly.
        let found = rustix::fs::fstat(&directory).context(Operation::Inspect, &at)?;
        if found.st_uid != rustix::process::geteuid().as_raw() || found.st_mode & 0o077 != 0 {
            return Ok(Err(EXCHANGED).context(Operation::CreateDirectory, &at)?);
        }
        fill(&path.beside(temporary.name()), directory.as_fd())?;
        set_mode_and_owner(directory.as_fd(), mode, owner, &at)?;
        Ok(temporary.rename(name, directory.as_fd(), RenameFlags::NOREPLACE)?)
    }

    /// Creates a hard link at `path` to an open file of the same filesystem, of any kind, and replaces an existing file.
    ///
    /// # Arguments
    /// `owner`: another owner that the file gets.
    ///
    /// # Errors
    /// Returns [`EXCHANGED`] if the jail's uid replaced the hard link in the meantime. Nothing has its name then, and
    /// the file keeps its owner.
    pub(crate) fn link_file(
        &self,
        file: BorrowedFd<'_>,
        path: &JailPath,
        owner: Option<Owner>,
    ) -> Result<()> {
        let at = self.host_path(path);
        let (parent, name) = self.parent(path)?;
        let temporary = Temporary::new(parent.as_fd(), at.clone());
        rustix::fs::linkat(file, c"", &parent, temporary.name(), AtFlags::EMPTY_PATH)
            .context(Operation::Link, &at)?;
        temporary.rename(name, file, RenameFlags::empty())?;
        let Some(owner) = owner else { return Ok(()) };
        // By the file descriptor: the jail's uid may have exchanged the name since.
        change_owner(file, owner).context(Operation::ChangeOwner, &at).inspect_err(|_| {
            remove(parent.as_fd(), name, &at);
        })
    }

    /// Opens a regular file of the tree for reading, which the jail's uid may replace at any time.
    pub(crate) fn open_file(&self, path: &JailPath) -> std::result::Result<OwnedFd, Errno> {
        // NONBLOCK: a named pipe, or a lease, is not waited for.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat2(self.root(), path.relative(), flags, Mode::empty(), INSIDE)
    }

    /// Opens something of any kind but a symbolic link, to inspect it; `None` if it does not exist.
    pub(crate) fn look(&self, path: &JailPath) -> Result<Option<OwnedFd>> {
        match open_path(self.root(), path.relative()) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(cause) => Err(cause).context(Operation::Open, self.host_path(path)),
        }
    }

    /// The number of hard links of a regular file that a process executes, also one of another pid namespace; `None` if
    /// none does, or if that cannot be found out.
    ///
    /// The kernel refuses to open such a file for writing. Nothing is written if it can be opened.
    pub(crate) fn links_of_busy(&self, path: &JailPath) -> Option<u64> {
        let facts = rustix::fs::fstat(open_path(self.root(), path.relative()).ok()?).ok()?;
        if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile {
            return None;
        }
        // NONBLOCK: the jail's uid may have replaced it by a named pipe since, or hold a lease.
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inside = INSIDE | ResolveFlags::NO_XDEV;
        match rustix::fs::openat2(self.root(), path.relative(), flags, Mode::empty(), inside) {
            Err(Errno::TXTBSY) => Some(facts.st_nlink),
            Ok(_) | Err(_) => None,
        }
    }

    /// Whether a directory of the tree is on the jail's own filesystem, or on a ramfs that stockade mounted in it.
    fn is_own(&self, directory: BorrowedFd<'_>) -> Result<bool> {
        let id_of = |fd| mounts::id_of(fd).context(Operation::Inspect, &self.path);
        if id_of(directory)?.0 == id_of(self.root())?.0 {
            return Ok(true);
        }
        Ok(mounts::mount_of(directory)?.is_some_and(|mount| mounts::is_ramfs_of_jail(&mount)))
    }

    /// Removes a file, node or symbolic link, or a directory with everything in it.
    ///
    /// On a foreign mount it stays, because stockade placed nothing there.
    pub(crate) fn remove(&self, path: &JailPath) -> Result<Removal> {
        let (parent, name) = match self.parent(path) {
            Ok(found) => found,
            Err(Error { cause: Errno::NOENT | Errno::NOTDIR | Errno::LOOP, .. }) => {
                return Ok(Removal::NeverThere);
            }
            Err(e) => return Err(e),
        };
        if !self.is_own(parent.as_fd())? {
            return Ok(Removal::NeverThere);
        }
        let at = self.host_path(path);
        match remove(parent.as_fd(), name, &at) {
            Removal::Left(..) if self.make_subvolumes_writable(path) => Ok(remove(parent.as_fd(), name, &at)),
            removal => Ok(removal),
        }
    }

    /// Removes everything with a temporary name from the directory that `path` is in.
    ///
    /// Its names are those of placements that were interrupted by a kill, or were invented by the jail's uid.
    pub(crate) fn remove_temporaries(&self, path: &JailPath) -> Result<Removal> {
        let parent = match self.parent(path) {
            Ok((parent, _)) => parent,
            Err(Error { cause: Errno::NOENT | Errno::NOTDIR | Errno::LOOP, .. }) => {
                return Ok(Removal::NeverThere);
            }
            Err(e) => return Err(e),
        };
        let mut outcome = Removal::NeverThere;
        for name in names(parent.as_fd()).context(Operation::Read, self.host_path(path))? {
            let Some(name) = name.to_str().ok().filter(|name| is_own_name(name)) else { continue };
            match self.remove(&path.beside(name))? {
                Removal::NeverThere => (),
                left @ Removal::Left(..) => return Ok(left),
                removal => outcome = removal,
            }
        }
        Ok(outcome)
    }

    /// Makes the read-only subvolumes on the way to `path` writable. Returns whether there were any.
    fn make_subvolumes_writable(&self, path: &JailPath) -> bool {
        let directories = self.directories_above(path);
        directories.iter().filter(|(_, directory)| make_subvolume_writable(directory.as_fd())).count() > 0
    }

    /// The existing directories on the way to `path`, from the root, each with its path on the host.
    fn directories_above(&self, path: &JailPath) -> Vec<(HostPath, OwnedFd)> {
        let mut above: Vec<&Path> = path.split().0.ancestors().collect();
        above.reverse();
        let open = |below: &Path| {
            let directory = if below.as_os_str().is_empty() { Path::new(".") } else { below };
            let opened = open_directory(self.root(), directory, INSIDE).ok()?;
            Some((self.path.join(below), opened))
        };
        above.into_iter().map_while(open).collect()
    }

    /// What prevents anything from being created or replaced at `path`: the path on the host that has the obstacle,
    /// the obstacle, and the command that removes it.
    pub(crate) fn obstacle(&self, path: &JailPath) -> Option<(HostPath, Obstacle, String)> {
        let directories = self.directories_above(path);
        let (parent, directory) = directories.last()?;
        let found = |at: &HostPath, obstacle: Obstacle| Some((at.clone(), obstacle, obstacle.fix(at)));
        if let Some(obstacle) = Obstacle::of(directory.as_fd()) {
            return found(parent, obstacle);
        }
        let subvolume = directories.iter().rev().find(|(_, above)| is_read_only_subvolume(above.as_fd()));
        if let Some((root, _)) = subvolume.filter(|_| is_in_read_only_subvolume(directory.as_fd())) {
            let obstacle = Obstacle::ReadOnlySubvolume;
            return Some((parent.clone(), obstacle, obstacle.fix(root)));
        }
        let existing = open_path(self.root(), path.relative()).ok()?;
        found(&self.host_path(path), Obstacle::of(existing.as_fd())?)
    }
}
