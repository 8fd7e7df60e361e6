//! Marks on directories: an extended attribute that only root can set or read, and that names the creator.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::spec::Nonce;
use crate::sys::user_namespace;

const NAME: &str = "trusted.stockade";

/// The directory of the jail that a cgroup belongs to: without it, only the jail's receipt knows whether it exists.
const JAIL: &str = "trusted.stockade.jail";

/// The longest path of the kernel.
const LONGEST_PATH: usize = 4096;

/// The mark of a directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The directory has a mark with this text.
    Is(Vec<u8>),
    /// The directory has no mark.
    None,
    /// The filesystem does not support such attributes.
    Unsupported,
}

/// To which jail a marked object belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkOwner {
    /// To the jail with this nonce.
    This,
    /// To another jail, or to another use of stockade.
    Other,
    /// It has no mark, so this cannot be known.
    Unknown,
}

impl Mark {
    /// The nonce of the jail that the object with this mark belongs to, if it is that of a jail.
    pub(crate) fn nonce(&self) -> Option<Nonce> {
        match self {
            Self::Is(text) => Nonce::parse(str::from_utf8(text).ok()?),
            Self::None | Self::Unsupported => None,
        }
    }

    /// To which jail the object with this mark belongs, as seen from the jail with this nonce; without a nonce every
    /// mark is another's.
    pub(crate) fn owner(&self, nonce: Option<&Nonce>) -> MarkOwner {
        match self {
            Self::Is(found) if nonce.is_some_and(|nonce| found == nonce.as_str().as_bytes()) => {
                MarkOwner::This
            }
            Self::Is(_) => MarkOwner::Other,
            Self::None | Self::Unsupported => MarkOwner::Unknown,
        }
    }
}

/// Marks a directory, unless its filesystem does not support marks.
pub(crate) fn set(directory: BorrowedFd<'_>, text: &str) -> Result<(), Errno> {
    match rustix::fs::fsetxattr(directory, NAME, text.as_bytes(), XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP) => Ok(()),
        marked => marked,
    }
}

/// Marks an object for the jail with this nonce and this directory, unless its filesystem does not support marks.
pub(crate) fn set_of_jail(object: BorrowedFd<'_>, nonce: &Nonce, directory: &Path) -> Result<(), Errno> {
    // First, so that no object has a nonce without it.
    match rustix::fs::fsetxattr(object, JAIL, directory.as_os_str().as_bytes(), XattrFlags::empty()) {
        Ok(()) | Err(Errno::OPNOTSUPP) => set(object, nonce.as_str()),
        failed => failed,
    }
}

/// The directory of the jail that an object is marked for, if the mark has it.
pub(crate) fn read_jail(object: BorrowedFd<'_>) -> Result<Option<PathBuf>, Errno> {
    let mut text = vec![0; LONGEST_PATH];
    match rustix::fs::fgetxattr(object, JAIL, &mut text[..]) {
        Ok(length) => Ok(Some(OsStr::from_bytes(&text[..length]).into())),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(cause) => Err(cause),
    }
}

/// Reads the mark of a directory.
///
/// Returns EPERM if this process cannot see marks: an object without one may then be a jail's.
pub(crate) fn read(directory: BorrowedFd<'_>) -> Result<Mark, Errno> {
    let mut text = [0; 64];
    match rustix::fs::fgetxattr(directory, NAME, &mut text) {
        Ok(length) => Ok(Mark::Is(text[..length].to_vec())),
        // The kernel hides the attribute from processes without CAP_SYS_ADMIN on the host.
        Err(Errno::NODATA) if !sees_marks() => Err(Errno::PERM),
        Err(Errno::NODATA) => Ok(Mark::None),
        Err(Errno::OPNOTSUPP) => Ok(Mark::Unsupported),
        // stockade sets no mark that is longer.
        Err(Errno::RANGE) => Ok(Mark::Is(Vec::new())),
        Err(cause) => Err(cause),
    }
}

/// Whether this process sees the attributes of directories that have them.
fn sees_marks() -> bool {
    let sets = rustix::thread::capabilities(None);
    let may = sets.is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    // Without a procfs every command that has a receipt ends earlier.
    may && user_namespace::try_is_initial() != Ok(false)
}
