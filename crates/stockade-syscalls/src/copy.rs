//! Carrying what is written to one descriptor over to another, with system calls alone.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// How long a reader that takes nothing is waited for once the writer is gone.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

const NO_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// The fate of a piece.
enum Given {
    Taken,
    /// The reader is gone.
    Refused,
    /// The writer is gone, and the reader takes nothing.
    Abandoned,
}

/// Carries over what can be read, until the other side is closed. It is read though the reader is
/// gone: the writer is not to wait for it.
///
/// `from` has to be non-blocking, or a pipe or terminal that is read in one piece.
pub(crate) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut buffer = [0; 4096];
    let mut is_heard = true;
    loop {
        wait_for(from, PollFlags::IN, None)?;
        let length = match rustix::io::read(from, &mut buffer) {
            // A terminal whose other side is closed says EIO.
            Ok(0) | Err(Errno::IO) => return Ok(()),
            Ok(length) => length,
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(cause) => return Err(cause),
        };
        if is_heard {
            match give(&buffer[..length], from, to)? {
                Given::Taken => (),
                Given::Refused => is_heard = false,
                Given::Abandoned => return Ok(()),
            }
        }
    }
}

fn give(mut rest: &[u8], from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<Given, Errno> {
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => (),
            Err(Errno::AGAIN) => {
                if !wait_for(to, PollFlags::OUT, Some(&PATIENCE))? && is_closed(from)? {
                    return Ok(Given::Abandoned);
                }
            }
            Err(_) => return Ok(Given::Refused),
        }
    }
    Ok(Given::Taken)
}

/// Whether the other side is closed.
fn is_closed(from: BorrowedFd<'_>) -> Result<bool, Errno> {
    wait_for(from, PollFlags::empty(), Some(&NO_TIME))
}

/// Waits for that, an end or an error; false if the time was over before.
fn wait_for(fd: BorrowedFd<'_>, what: PollFlags, timeout: Option<&Timespec>) -> Result<bool, Errno> {
    match poll(&mut [PollFd::from_borrowed_fd(fd, what)], timeout) {
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
    fn all_of_it_is_carried_over_until_the_end() {
        let (from, mut written) = std::io::pipe().expect("a pipe");
        let (mut read, to) = std::io::pipe().expect("a pipe");
        written.write_all(b"some text").expect("room for it");
        drop(written);
        copy(from.as_fd(), to.as_fd()).expect("a copy");
        drop(to);
        let mut text = String::new();
        read.read_to_string(&mut text).expect("what was copied");
        assert_eq!(text, "some text");
    }

    #[test]
    fn a_writer_does_not_wait_for_a_reader_that_is_gone() {
        let (from, mut written) = std::io::pipe().expect("a pipe");
        let to = std::fs::File::options().write(true).open("/dev/full").expect("a full device");
        let writer = std::thread::spawn(move || written.write_all(&vec![b'x'; 1 << 20]));
        copy(from.as_fd(), to.as_fd()).expect("a copy");
        writer.join().expect("a thread that ends").expect("nothing that fails to be written");
    }
}
