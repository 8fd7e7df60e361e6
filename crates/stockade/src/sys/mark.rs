//! Marks that tell who made a directory: an extended attribute that only root can set or see.

use std::os::fd::BorrowedFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

const NAME: &str = "trusted.stockade";

/// What a directory says of its maker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// This text.
    Is(Vec<u8>),
    /// Nothing.
    None,
    /// Its filesystem keeps no such attributes.
    Unsupported,
}

/// Marks a directory. Where the filesystem keeps no marks it stays without.
pub(crate) fn set(directory: BorrowedFd<'_>, text: &str) -> Result<(), Errno> {
    match rustix::fs::fsetxattr(directory, NAME, text.as_bytes(), XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP) => Ok(()),
        marked => marked,
    }
}

/// Reads the mark of a directory.
pub(crate) fn read(directory: BorrowedFd<'_>) -> Result<Mark, Errno> {
    let mut text = [0; 64];
    match rustix::fs::fgetxattr(directory, NAME, &mut text) {
        Ok(length) => Ok(Mark::Is(text[..length].to_vec())),
        Err(Errno::NODATA) => Ok(Mark::None),
        Err(Errno::OPNOTSUPP) => Ok(Mark::Unsupported),
        // One of another length was not set by us.
        Err(Errno::RANGE) => Ok(Mark::Is(Vec::new())),
        Err(cause) => Err(cause),
    }
}
