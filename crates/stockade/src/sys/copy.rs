//! Copying a file's content, in the kernel if the filesystems allow it, and holes as holes.

use std::fs::File;
use std::io::Read;
use std::ops::{ControlFlow, Range};
use std::os::fd::BorrowedFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// The progress of a copy, or of the removal of many jails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are copied, or known to be holes; or the number of jails that are done.
    pub done: u64,
    /// The total; for a directory, the bytes of all files in it.
    pub total: u64,
}

/// A function that receives the progress of a copy, and decides whether the copy continues.
///
/// If it returns [`ControlFlow::Break`], the copy fails with ECANCELED and leaves nothing in the jail.
pub type OnProgress<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

/// The size of a file before it is copied.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// In bytes; 0 also for files that are generated when they are read, as in `/proc`.
    pub(crate) size: u64,
    /// The stored part, in blocks of 512 bytes.
    pub(crate) blocks: u64,
}

/// The least size of all holes, in bytes, for which they are searched.
///
/// Linkers leave small holes in every program, and copying these is faster than searching them.
const WORTHWHILE: u64 = 1 << 20;

/// Bytes that are copied between two reports of progress.
const CHUNK: u64 = 16 << 20;

/// Copies a whole file into a new one, and reports progress.
///
/// # Errors
/// Any error of the kernel, and ECANCELED if `on_progress` broke the copy off.
pub(crate) fn copy(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    extent: Extent,
    on_progress: &mut OnProgress<'_>,
) -> std::io::Result<()> {
    let Extent { size, blocks } = extent;
    let holes = size.saturating_sub(blocks.saturating_mul(512));
    let mut copying = Copying { source, target, size, on_progress };
    if holes >= WORTHWHILE && copying.data()? {
        return Ok(());
    }
    // Reading ends at the size, which saves the call that finds the end. A size of 0 means that it is unknown.
    copying.range(0..if size == 0 { u64::MAX } else { size })
}

/// A copy under way.
struct Copying<'a, 'p> {
    source: BorrowedFd<'a>,
    target: BorrowedFd<'a>,
    size: u64,
    on_progress: &'a mut OnProgress<'p>,
}

impl Copying<'_, '_> {
    fn report(&mut self, done: u64) -> Result<(), Errno> {
        match (self.on_progress)(Progress { done, total: self.size.max(done) }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Errno::CANCELED),
        }
    }

    /// Copies the data between the holes; false if the source has no holes, or its filesystem does not report them.
    fn data(&mut self) -> std::io::Result<bool> {
        let mut end = 0;
        loop {
            let start = match rustix::fs::seek(self.source, SeekFrom::Data(end)) {
                Ok(start) => start,
                // Only a hole is left.
                Err(Errno::NXIO) => break,
                // The filesystem does not report holes.
                Err(Errno::INVAL) if end == 0 => return Ok(false),
                Err(cause) => return Err(cause.into()),
            };
            end = rustix::fs::seek(self.source, SeekFrom::Hole(start))?;
            if start == 0 && end >= self.size {
                // No hole: for example a file in /sys, whose size is larger than its content.
                rustix::fs::seek(self.source, SeekFrom::Start(0))?;
                return Ok(false);
            }
            for file in [self.source, self.target] {
                rustix::fs::seek(file, SeekFrom::Start(start))?;
            }
            self.range(start..end)?;
        }
        // A hole at the end is not written, so the size has to be set.
        rustix::fs::ftruncate(self.target, self.size)?;
        self.report(self.size)?;
        Ok(true)
    }

    /// Copies a range, at whose start both files are positioned, or less if the source ends before.
    fn range(&mut self, range: Range<u64>) -> std::io::Result<()> {
        let Range { mut start, end } = range;
        while start < end {
            let chunk = usize::try_from((end - start).min(CHUNK)).unwrap_or(usize::MAX);
            match rustix::fs::copy_file_range(self.source, None, self.target, None, chunk) {
                Ok(0) if end < u64::MAX => return Ok(()),
                Ok(copied @ 1..) => start += copied as u64,
                Err(Errno::INTR) => continue,
                // Across filesystems before Linux 5.19, or a filesystem without the call: both files are positioned
                // where the kernel stopped, so reading and writing continues there. Kernels before 5.19 also copy
                // nothing of files whose size is unknown.
                Ok(0) | Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    return self.read_and_write(start..end);
                }
                Err(cause) => return Err(cause.into()),
            }
            self.report(start)?;
        }
        Ok(())
    }

    /// The same with `read` and `write`.
    fn read_and_write(&mut self, range: Range<u64>) -> std::io::Result<()> {
        let Range { mut start, end } = range;
        let mut source = File::from(self.source.try_clone_to_owned()?);
        let mut target = File::from(self.target.try_clone_to_owned()?);
        while start < end {
            match std::io::copy(&mut source.by_ref().take((end - start).min(CHUNK)), &mut target)? {
                0 => return Ok(()),
                copied => start += copied,
            }
            self.report(start)?;
        }
        Ok(())
    }
}
