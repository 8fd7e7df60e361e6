//! Removal of a whole directory: bottom up, by file descriptor, never across a mount or through a symbolic link.

use std::ffi::{CStr, CString, OsStr};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, RawDir, ResolveFlags, SeekFrom};
use rustix::io::Errno;

use crate::spec::HostPath;
use crate::sys::directory_names::is_dots;
use crate::sys::file_id::FileId;
use crate::sys::obstacle::{make_subvolume_writable, unlink, why_left};
use crate::sys::open::{INSIDE, open_directory};

/// The outcome of a removal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Removal {
    /// It was removed.
    Removed,
    /// It did not exist.
    NeverThere,
    /// It stays for this reason, because others use it too.
    Kept(String),
    /// The path that could not be removed, and the reason.
    Left(HostPath, String),
}

/// Removes the file or directory `name` in an open directory, with everything in it.
///
/// # Arguments
/// `at` is its path, for messages.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &OsStr, at: &HostPath) -> Removal {
    remove_with_progress(parent, name, at, &mut |_| ())
}

/// The same, and calls `on_removed` with the path of each removed file or directory.
pub(crate) fn remove_with_progress(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    at: &HostPath,
    on_removed: &mut dyn FnMut(&HostPath),
) -> Removal {
    let Ok(name) = CString::new(name.as_bytes()) else { return Removal::NeverThere };
    match unlink(parent, &name, AtFlags::empty()) {
        Ok(()) => {
            on_removed(at);
            return Removal::Removed;
        }
        Err(Errno::NOENT) => return Removal::NeverThere,
        Err(Errno::ISDIR) => (),
        Err(cause) => return Removal::Left(at.clone(), why_left(parent, &name, at, cause)),
    }
    let mut sweep = Sweep { descents: 0, left: None, on_removed };
    sweep.directory(parent, &name, at, 0);
    match sweep.left {
        Some((path, why)) => Removal::Left(path, why),
        None => Removal::Removed,
    }
}

/// The depth from which a directory is left by its `..`, and no file descriptor is kept for it.
///
/// The jail's uid can nest thousands of directories. They are not moved to a lesser depth instead: no directory can be
/// moved out of a subvolume of btrfs, to a directory with another project quota, or without the key of its encryption.
const DEEPEST: u32 = 32;

/// How often a directory is read again because it was not empty.
const PASSES: u32 = 64;

/// The number of descents into deep directories after which a removal fails: a process creates them as fast as they are
/// removed.
const MOST_DESCENTS: u32 = 1 << 20;

struct Sweep<'t> {
    descents: u32,
    /// The first path that could not be removed, and the reason.
    left: Option<(HostPath, String)>,
    on_removed: &'t mut dyn FnMut(&HostPath),
}

impl Sweep<'_> {
    fn directory(&mut self, parent: BorrowedFd<'_>, name: &CStr, at: &HostPath, depth: u32) {
        let directory = match enter(parent, name) {
            Ok(directory) => directory,
            // Replaced by something else: the next pass over the directory above finds that.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return,
            Err(cause) => return self.leave(parent, name, at, cause),
        };
        let directory = directory.as_fd();
        let mut passes = 0;
        while passes < PASSES && self.descents < MOST_DESCENTS {
            let before = self.descents;
            self.contents(directory, at, depth + 1);
            match unlink(parent, name, AtFlags::REMOVEDIR) {
                Ok(()) => return (self.on_removed)(at),
                Err(Errno::NOENT | Errno::NOTDIR) => return,
                Err(Errno::NOTEMPTY) if self.left.is_none() => (),
                Err(cause) => return self.leave(parent, name, at, cause),
            }
            // The next pass reads it from its start.
            if let Err(cause) = rustix::fs::seek(directory, SeekFrom::Start(0)) {
                return self.leave(parent, name, at, cause);
            }
            if before == self.descents {
                passes += 1;
            }
        }
        self.leave(parent, name, at, Errno::NOTEMPTY);
    }

    fn contents(&mut self, directory: BorrowedFd<'_>, at: &HostPath, depth: u32) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let (name, kind) = match entry {
                Ok(entry) => (entry.file_name().to_owned(), entry.file_type()),
                // Another process has removed the directory itself.
                Err(Errno::NOENT) => return,
                Err(cause) => return self.leave(directory, c".", at, cause),
            };
            if !is_dots(&name) {
                self.entry(directory, &name, kind, &at.join(OsStr::from_bytes(name.to_bytes())), depth);
            }
        }
    }

    fn entry(&mut self, parent: BorrowedFd<'_>, name: &CStr, kind: FileType, at: &HostPath, depth: u32) {
        match unlink_unless_directory(parent, name, kind) {
            Ok(()) => (self.on_removed)(at),
            Err(Errno::NOENT) => (),
            Err(Errno::ISDIR) if depth >= DEEPEST => self.deep_directory(parent, name, at),
            Err(Errno::ISDIR) => self.directory(parent, name, at, depth),
            Err(cause) => self.leave(parent, name, at, cause),
        }
    }

    /// Removes a directory of any depth with two file descriptors. It ends early if the jail's uid moves a directory of
    /// it, which the next pass finds, or if something cannot be removed.
    fn deep_directory(&mut self, parent: BorrowedFd<'_>, name: &CStr, at: &HostPath) {
        let (mut path, mut levels) = (at.as_path().to_owned(), Vec::new());
        let mut here = self.descend(parent, name.to_owned(), &path, &mut levels);
        while let Some(directory) = here {
            here = match self.files(directory.as_fd(), &path) {
                Some(name) => {
                    path.push(OsStr::from_bytes(name.to_bytes()));
                    self.descend(directory.as_fd(), name, &path, &mut levels)
                }
                None if self.left.is_some() => return,
                None => {
                    let above = self.ascend(directory.as_fd(), &path, &mut levels);
                    path.pop();
                    above.filter(|_| !levels.is_empty())
                }
            };
        }
    }

    fn descend(
        &mut self,
        from: BorrowedFd<'_>,
        name: CString,
        at: &Path,
        levels: &mut Vec<Level>,
    ) -> Option<OwnedFd> {
        self.descents += 1;
        if self.descents >= MOST_DESCENTS {
            return None;
        }
        match FileId::of(from).and_then(|above| Ok((above, enter(from, &name)?))) {
            Ok((above, directory)) => {
                levels.push(Level { name, above });
                Some(directory)
            }
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => None,
            Err(cause) => {
                self.leave(from, &name, &at.to_owned().into(), cause);
                None
            }
        }
    }

    /// Removes an empty directory, and returns the one that it was in.
    fn ascend(&mut self, from: BorrowedFd<'_>, at: &Path, levels: &mut Vec<Level>) -> Option<OwnedFd> {
        let (Level { name, above }, at) = (levels.pop()?, HostPath::from(at.to_owned()));
        let outer = match leave_by_dots(from) {
            // Another one if the jail's uid has moved the directory.
            Ok(outer) => Some(outer).filter(|outer| FileId::of(outer) == Ok(above))?,
            Err(cause) => {
                self.leave(from, c".", &at, cause);
                return None;
            }
        };
        match unlink(outer.as_fd(), &name, AtFlags::REMOVEDIR) {
            Ok(()) => (self.on_removed)(&at),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NOTEMPTY) => (),
            Err(cause) => {
                self.leave(outer.as_fd(), &name, &at, cause);
                return None;
            }
        }
        Some(outer)
    }

    /// Removes the files of a directory until a directory in it is found, and returns the name of that.
    fn files(&mut self, directory: BorrowedFd<'_>, at: &Path) -> Option<CString> {
        // On the heap: the caller is at the end of a recursion.
        let mut buffer = vec![MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let (name, kind) = match entry {
                Ok(entry) => (entry.file_name().to_owned(), entry.file_type()),
                Err(Errno::NOENT) => return None,
                Err(cause) => {
                    self.leave(directory, c".", &at.to_owned().into(), cause);
                    return None;
                }
            };
            if is_dots(&name) {
                continue;
            }
            let at = || HostPath::from(at.join(OsStr::from_bytes(name.to_bytes())));
            match unlink_unless_directory(directory, &name, kind) {
                Ok(()) => (self.on_removed)(&at()),
                Err(Errno::NOENT) => (),
                Err(Errno::ISDIR) => return Some(name),
                Err(cause) => {
                    self.leave(directory, &name, &at(), cause);
                    return None;
                }
            }
        }
        None
    }

    fn leave(&mut self, parent: BorrowedFd<'_>, name: &CStr, at: &HostPath, cause: Errno) {
        if self.left.is_none() {
            self.left = Some((at.clone(), why_left(parent, name, at, cause)));
        }
    }
}

/// A directory on the way to the current one.
struct Level {
    name: CString,
    /// The identity of the directory that it is in.
    above: FileId,
}

/// Opens a directory for the removal of its contents. If it is the root of a read-only subvolume, it becomes writable.
fn enter(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let resolve = INSIDE.union(ResolveFlags::NO_XDEV);
    let directory = open_directory(parent, Path::new(OsStr::from_bytes(name.to_bytes())), resolve)?;
    make_subvolume_writable(directory.as_fd());
    Ok(directory)
}

/// Opens the directory above an open one, on the same mount.
fn leave_by_dots(directory: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    open_directory(directory, Path::new(".."), resolve)
}

/// Removes a name; EISDIR for a directory. If the entry was replaced since it was listed, the next pass finds that.
fn unlink_unless_directory(parent: BorrowedFd<'_>, name: &CStr, kind: FileType) -> Result<(), Errno> {
    match kind {
        FileType::Directory => Err(Errno::ISDIR),
        _ => unlink(parent, name, AtFlags::empty()),
    }
}
