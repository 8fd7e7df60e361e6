//! Copying from one file descriptor to another with system calls alone.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// The time to wait for a stalled reader once the writer has closed its end.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

const NO_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// The result of a write.
enum Delivery {
    Written,
    /// The reader has closed its end.
    Refused,
    /// The writer has closed its end, and the reader is stalled.
    Abandoned,
}

/// Copies until the writer closes its end. Keeps reading after the reader has closed its end, so that the writer never
/// blocks.
///
/// `from` must be non-blocking, or a pipe or terminal that returns available data at once.
pub(crate) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut buffer = [0; 4096];
    let mut has_reader = true;
    loop {
        wait_for(from, PollFlags::IN, None)?;
        let length = match rustix::io::read(from, &mut buffer) {
            // EIO: the other side of a terminal is closed.
            Ok(0) | Err(Errno::IO) => return Ok(()),
            Ok(length) => length,
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(cause) => return Err(cause),
        };
        if has_reader {
            match deliver(&buffer[..length], from, to)? {
                Delivery::Written => (),
                Delivery::Refused => has_reader = false,
                Delivery::Abandoned => return Ok(()),
            }
        }
    }
}

fn deliver(mut rest: &[u8], from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<Delivery, Errno> {
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => (),
            Err(Errno::AGAIN) => {
                if !wait_for(to, PollFlags::OUT, Some(&PATIENCE))? && is_closed(from)? {
                    return Ok(Delivery::Abandoned);
                }
            }
            Err(_) => return Ok(Delivery::Refused),
        }
    }
    Ok(Delivery::Written)
}

/// Whether the writer has closed its end.
fn is_closed(from: BorrowedFd<'_>) -> Result<bool, Errno> {
    wait_for(from, PollFlags::empty(), Some(&NO_TIME))
}

/// Waits for `events`, a hang-up or an error; false after the timeout.
fn wait_for(fd: BorrowedFd<'_>, events: PollFlags, timeout: Option<&Timespec>) -> Result<bool, Errno> {
    match poll(&mut [PollFd::from_borrowed_fd(fd, events)], timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(true),
        Err(cause) => Err(cause),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn copy_writes_everything_up_to_the_end() {
        let (from, mut written) = std::io::pipe().expect("a pipe");
        let (mut read, to) = std::io::pipe().expect("a pipe");
        written.write_all(b"some text").expect("a write");
        drop(written);
        copy(from.as_fd(), to.as_fd()).expect("a copy");
        drop(to);
        let mut text = String::new();
        read.read_to_string(&mut text).expect("the copied text");
        assert_eq!(text, "some text");
    }

    #[test]
    fn a_writer_does_not_wait_for_a_closed_reader() {
        let (from, mut written) = std::io::pipe().expect("a pipe");
        let to = std::fs::File::options().write(true).open("/dev/full").expect("a full device");
        let writer = std::thread::spawn(move || written.write_all(&vec![b'x'; 1 << 20]));
        copy(from.as_fd(), to.as_fd()).expect("a copy");
        writer.join().expect("no panic").expect("a complete write");
    }
}
