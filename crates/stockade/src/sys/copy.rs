//! Copying a file's content: in the kernel where the filesystems allow it, holes as holes.

use std::fs::File;
use std::io::Read;
use std::ops::{ControlFlow, Range};
use std::os::fd::BorrowedFd;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// How far a copy, or the removal of many jails, has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// So many bytes are copied, or known to be holes; or so many jails are seen to.
    pub done: u64,
    /// Of so many; of a directory, the bytes of all files in it.
    pub total: u64,
}

/// What is told of a copy that goes on, and says whether it is to: after a break it is given up with ECANCELED, and
/// nothing of it stays.
pub type OnProgress<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

/// What was seen of a file before it is copied.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// Its size in bytes; 0 also for files that are made as they are read, as in /proc.
    pub(crate) size: u64,
    /// How much of it is stored, in blocks of 512 bytes.
    pub(crate) blocks: u64,
}

/// The least that must be saved in holes: linkers leave some in every program, and looking for them takes
/// longer than copying them.
const WORTHWHILE: u64 = 1 << 20;

/// How much is copied between two words about it.
const CHUNK: u64 = 16 << 20;

/// Copies a whole file into a new one, telling how far it has come.
pub(crate) fn copy(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    seen: Extent,
    tell: &mut OnProgress<'_>,
) -> std::io::Result<()> {
    let holes = seen.size.saturating_sub(seen.blocks.saturating_mul(512));
    let mut reached = |done: u64| match tell(Progress { done, total: seen.size.max(done) }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Errno::CANCELED),
    };
    if holes >= WORTHWHILE && copy_data(source, target, seen.size, &mut reached)? {
        return Ok(());
    }
    // Having copied as much as the size says is having reached the end, unless it says nothing.
    range(source, target, 0..if seen.size == 0 { u64::MAX } else { seen.size }, &mut reached)
}

/// Copies what is between a file's holes; tells whether that could be done.
fn copy_data(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    size: u64,
    reached: &mut dyn FnMut(u64) -> Result<(), Errno>,
) -> std::io::Result<bool> {
    let mut end = 0;
    loop {
        let start = match rustix::fs::seek(source, SeekFrom::Data(end)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            // A filesystem that knows of no holes.
            Err(Errno::INVAL) if end == 0 => return Ok(false),
            Err(cause) => return Err(cause.into()),
        };
        end = rustix::fs::seek(source, SeekFrom::Hole(start))?;
        if start == 0 && end >= size {
            // No hole at all: a file in /sys, for one, whose size says more than is in it.
            rustix::fs::seek(source, SeekFrom::Start(0))?;
            return Ok(false);
        }
        for file in [source, target] {
            rustix::fs::seek(file, SeekFrom::Start(start))?;
        }
        range(source, target, start..end, reached)?;
    }
    // A hole at the end is not written, so the size has to be told.
    rustix::fs::ftruncate(target, size)?;
    reached(size)?;
    Ok(true)
}

/// Copies what is in a range at whose beginning both files stand, or less if the file ends before.
fn range(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    range: Range<u64>,
    reached: &mut dyn FnMut(u64) -> Result<(), Errno>,
) -> std::io::Result<()> {
    let Range { mut start, end } = range;
    while start < end {
        let chunk = usize::try_from((end - start).min(CHUNK)).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(source, None, target, None, chunk) {
            Ok(0) if end < u64::MAX => return Ok(()),
            Ok(copied @ 1..) => start += copied as u64,
            Err(Errno::INTR) => continue,
            // Across filesystems before 5.19, or one that knows no such call: both offsets stand where the
            // kernel left off, so reading and writing goes on from there. Kernels before that also find
            // nothing in files that tell no size.
            Ok(0) | Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return by_hand(source, target, start..end, reached);
            }
            Err(cause) => return Err(cause.into()),
        }
        reached(start)?;
    }
    Ok(())
}

/// The same by reading and writing.
fn by_hand(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    range: Range<u64>,
    reached: &mut dyn FnMut(u64) -> Result<(), Errno>,
) -> std::io::Result<()> {
    let Range { mut start, end } = range;
    let mut from = File::from(source.try_clone_to_owned()?);
    let mut to = File::from(target.try_clone_to_owned()?);
    while start < end {
        match std::io::copy(&mut from.by_ref().take((end - start).min(CHUNK)), &mut to)? {
            0 => return Ok(()),
            copied => start += copied,
        }
        reached(start)?;
    }
    Ok(())
}
