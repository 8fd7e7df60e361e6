//! Copying a file's content: in the kernel where the filesystems allow it, holes as holes.

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Copies a whole file into a new one.
pub(super) fn copy(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> std::io::Result<()> {
    let size = rustix::fs::fstat(source)?.st_size.unsigned_abs();
    if size == 0 {
        // Empty, or made as it is read and of unknown size, as in /proc.
        return read_and_write(source, target, u64::MAX).map(drop);
    }
    let mut end = 0;
    loop {
        let start = match rustix::fs::seek(source, SeekFrom::Data(end)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            // A filesystem that knows of no holes.
            Err(Errno::INVAL) if end == 0 => return read_and_write(source, target, u64::MAX).map(drop),
            Err(cause) => return Err(cause.into()),
        };
        end = rustix::fs::seek(source, SeekFrom::Hole(start))?;
        for file in [source, target] {
            rustix::fs::seek(file, SeekFrom::Start(start))?;
        }
        if !range(source, target, end - start)? {
            // It has less in it than its size says, as in /sys.
            return Ok(());
        }
    }
    // A hole at the end is not written, so the size has to be told.
    Ok(rustix::fs::ftruncate(target, size)?)
}

/// Copies so many bytes from where both files stand; tells whether there were so many.
fn range(source: BorrowedFd<'_>, target: BorrowedFd<'_>, mut length: u64) -> std::io::Result<bool> {
    const CHUNK: u64 = 1 << 30;
    while length > 0 {
        let chunk = usize::try_from(length.min(CHUNK)).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(source, None, target, None, chunk) {
            Ok(0) => return Ok(false),
            Ok(copied) => length -= copied as u64,
            Err(Errno::INTR) => (),
            // Across filesystems before 5.19, or one that knows no such call: both offsets stand where the
            // kernel left off, so reading and writing goes on from there.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return Ok(read_and_write(source, target, length)? == length);
            }
            Err(cause) => return Err(cause.into()),
        }
    }
    Ok(true)
}

/// Copies so many bytes, or fewer if the file ends before; tells how many.
fn read_and_write(source: BorrowedFd<'_>, target: BorrowedFd<'_>, length: u64) -> std::io::Result<u64> {
    let from = File::from(source.try_clone_to_owned()?);
    let mut to = File::from(target.try_clone_to_owned()?);
    std::io::copy(&mut from.take(length), &mut to)
}
