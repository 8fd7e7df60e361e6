//! Modes that do not depend on the umask of the process, and owners.
//!
//! The umask belongs to the whole process, and other threads create files at the same moment, so it is never changed.
//! Each file is created with at most its mode, and its file descriptor then sets the bits that the umask removed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

use crate::spec::{HostPath, Owner};
use crate::sys::error::{self, Context, Operation};
use crate::sys::open::open_directory;

/// The mode of directories that all users may enter: those on the way to a jail, and cgroups.
pub(crate) const PUBLIC: u32 = 0o755;

/// The mode of directories that only their owner may enter.
pub(crate) const PRIVATE: u32 = 0o700;

/// Whether something belongs to root, and no other user can write to it.
pub(crate) fn is_roots_own(facts: &Stat) -> bool {
    facts.st_uid == 0 && facts.st_mode & 0o022 == 0
}

/// Gives an open file exactly this mode. With mode 0 the umask cannot have removed anything.
pub(crate) fn set_mode(file: impl AsFd, mode: u32) -> Result<(), Errno> {
    if mode == 0 { Ok(()) } else { rustix::fs::fchmod(file, Mode::from_raw_mode(mode)) }
}

/// Changes the owner of an open file; the file descriptor may be an `O_PATH` one.
pub(crate) fn change_owner(file: BorrowedFd<'_>, owner: Owner) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    rustix::fs::chownat(file, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
}

pub(crate) fn set_mode_and_owner(
    directory: BorrowedFd<'_>,
    mode: u32,
    owner: Owner,
    at: &HostPath,
) -> error::Result<()> {
    rustix::fs::fchmod(directory, Mode::from_raw_mode(mode)).context(Operation::ChangeMode, at)?;
    change_owner(directory, owner).context(Operation::ChangeOwner, at)
}

/// Creates a directory of the host with exactly this mode; `None` if the name exists.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<Option<OwnedFd>, Errno> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) => (),
        Err(Errno::EXIST) => return Ok(None),
        Err(cause) => return Err(cause),
    }
    let directory = open_directory(CWD, path, ResolveFlags::empty())?;
    set_mode(&directory, mode)?;
    Ok(Some(directory))
}

/// The same, with the missing directories above it.
pub(crate) fn make_directories(path: &Path, mode: u32) -> Result<(), Errno> {
    match make_directory(path, mode) {
        Err(Errno::NOENT) => (),
        created => return created.map(drop),
    }
    make_directories(path.parent().ok_or(Errno::NOENT)?, mode)?;
    make_directory(path, mode).map(drop)
}

/// Opens a file in a directory for writing, and gives it exactly this mode.
pub(crate) fn create_file(
    directory: impl AsFd,
    name: &str,
    flags: OFlags,
    mode: u32,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(mode))?;
    set_mode(&file, mode)?;
    Ok(file)
}
