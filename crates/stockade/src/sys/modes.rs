//! Modes that do not depend on the umask of the process.
//!
//! A umask belongs to the whole process, whose other threads create files at the same moment: it is never changed.
//! What is made is made with no more than its mode, and gets by its descriptor what the umask has taken away.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::sys::jail_root::open_directory;

/// The mode of directories that everybody may enter: those on the way to a jail, and cgroups.
pub(crate) const PUBLIC: u32 = 0o755;

/// The mode of what is the owner's alone.
pub(crate) const PRIVATE: u32 = 0o700;

/// Gives what is open exactly this mode. There is nothing that a umask could have taken from no mode at all.
pub(crate) fn set_mode(made: impl AsFd, mode: u32) -> Result<(), Errno> {
    if mode == 0 { Ok(()) } else { rustix::fs::fchmod(made, Mode::from_raw_mode(mode)) }
}

/// Makes a directory of the host with exactly this mode; `None` if something of that name is there.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<Option<OwnedFd>, Errno> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) => (),
        Err(Errno::EXIST) => return Ok(None),
        Err(cause) => return Err(cause),
    }
    let made = open_directory(CWD, path, ResolveFlags::empty())?;
    set_mode(&made, mode)?;
    Ok(Some(made))
}

/// The same with the directories above it that are missing.
pub(crate) fn make_directories(path: &Path, mode: u32) -> Result<(), Errno> {
    match make_directory(path, mode) {
        Err(Errno::NOENT) => (),
        made => return made.map(drop),
    }
    make_directories(path.parent().ok_or(Errno::NOENT)?, mode)?;
    make_directory(path, mode).map(drop)
}

/// Opens a file of a directory to write it, with exactly this mode if it has to be made.
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
