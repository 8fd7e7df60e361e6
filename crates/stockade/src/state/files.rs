//! Reading the files of an entry: without following a symbolic link, without waiting for the writer of a FIFO, and with a limit.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::spec::HostPath;

/// What lies under the name of a file.
#[derive(Debug)]
pub(crate) enum Found {
    /// The file, with its facts.
    File(File, Box<rustix::fs::Stat>),
    /// Nothing, or the name goes through a file.
    Nothing,
    /// Something else.
    Other,
}

/// Opens a file in an entry for reading.
///
/// # Errors
/// Returns any errno of `openat2` and `fstat` that does not mean that there is no file.
pub(crate) fn open_file(from: BorrowedFd<'_>, path: &Path) -> Result<Found, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file: OwnedFd = match rustix::fs::openat2(from, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
    {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Found::Nothing),
        // A symbolic link; a socket, or a device without a driver.
        Err(Errno::LOOP | Errno::NXIO | Errno::NODEV) => return Ok(Found::Other),
        Err(cause) => return Err(cause),
    };
    let facts = rustix::fs::fstat(&file)?;
    Ok(match FileType::from_raw_mode(facts.st_mode) {
        FileType::RegularFile => Found::File(file.into(), Box::new(facts)),
        _ => Found::Other,
    })
}

/// Whether this is a file that [`open_file`] opens.
pub(crate) fn is_file(path: &HostPath) -> bool {
    matches!(open_file(CWD, path.as_path()), Ok(Found::File(..)))
}
