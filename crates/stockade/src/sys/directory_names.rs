//! The entries of an open directory.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;

/// A name in a directory.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: CString,
    /// The type when the directory was read.
    pub(crate) kind: FileType,
}

/// Reads all names of an open directory that was not read from before.
pub(crate) fn names(directory: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    Ok(entries(directory, usize::MAX)?.into_iter().map(|entry| entry.name).collect())
}

/// Reads at most `most` entries of an open directory that was not read from before.
pub(crate) fn entries(directory: BorrowedFd<'_>, most: usize) -> Result<Vec<Entry>, Errno> {
    // On the heap: callers recurse into directories of any depth, and buffers on the stack would fill it.
    let mut buffer = vec![MaybeUninit::uninit(); 8192];
    let mut directory = RawDir::new(directory, &mut buffer);
    let mut entries = Vec::new();
    while entries.len() < most
        && let Some(entry) = directory.next()
    {
        let entry = entry?;
        if !is_dots(entry.file_name()) {
            entries.push(Entry { name: entry.file_name().to_owned(), kind: entry.file_type() });
        }
    }
    Ok(entries)
}

/// Whether this is `.` or `..`.
pub(crate) fn is_dots(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}
