//! The output of several VMMs on one stream, each line after the id of its jail.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use stockade::Streams;
use stockade::spec::JailId;
use stockade::spec::reason;

use crate::terminal::escape::ShownOutput;
use crate::terminal::output::{Failure, error};
use crate::terminal::width;

/// A longer line is split. In bytes.
const LONGEST_LINE: u64 = 64 << 10;

/// Time limit for printing the last output. Only a process that escaped from its jail holds a stream for longer.
const LAST_OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Two threads that copy the output of one VMM. The channel closes when both have finished.
#[derive(Debug)]
pub(crate) struct Prefixed(Receiver<()>);

impl Prefixed {
    /// Creates the streams of a VMM: stdin is empty, stdout and stderr are copied to those of the command.
    ///
    /// # Arguments
    /// `width`: width of the longest id in terminal cells.
    pub(crate) fn new(id: &JailId, width: usize) -> Result<(Streams, Self), Failure> {
        let prefix = format!("{} | ", width::padded(id.as_str(), width));
        let failed = |e: io::Error| Failure::new(format!("cannot create the VMM's streams: {}", reason(&e)));
        let stdin = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let (alive, end) = channel();
        let stdout = copy(prefix.clone(), io::stdout(), alive.clone()).map_err(failed)?;
        let stderr = copy(prefix, io::stderr(), alive).map_err(failed)?;
        let streams = Streams {
            stdin: Some(stdin.map_err(|e| failed(e.into()))?),
            stdout: Some(stdout),
            stderr: Some(stderr),
        };
        Ok((streams, Self(end)))
    }

    /// Waits until all output is printed. Call it after the jail is removed, so that no process holds the streams.
    pub(crate) fn finish(self) {
        let _ = self.0.recv_timeout(LAST_OUTPUT_TIMEOUT);
    }
}

/// Starts a thread that copies a pipe's lines and drops `alive` at the end. Returns the pipe's write end.
fn copy(
    prefix: String,
    to: impl Write + IsTerminal + Send + 'static,
    alive: Sender<()>,
) -> io::Result<OwnedFd> {
    let (from, write_end) = pipe_with(PipeFlags::CLOEXEC)?;
    let shown = to.is_terminal();
    Builder::new().name("output".to_owned()).spawn(move || {
        copy_lines(&prefix, File::from(from), to, shown);
        drop(alive);
    })?;
    Ok(write_end)
}

/// # Arguments
/// `shown`: whether a terminal shows the lines, so that no VMM may control it or write into the line of another.
fn copy_lines(prefix: &str, from: impl Read, mut to: impl Write, shown: bool) {
    let mut from = BufReader::new(from);
    loop {
        let mut line = prefix.as_bytes().to_vec();
        match from.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if line.ends_with(b"\n") => (),
            Ok(_) => line.push(b'\n'),
        }
        if shown {
            let mut output = ShownOutput::default();
            line = (output.show(&line) + &output.finish()).into_bytes();
        }
        // In one write, so that lines of other VMMs do not mix with this one. If the reader has closed the stream, the
        // VMM gets EPIPE from its next write, like a single VMM that writes to the stream itself.
        match to.write_all(&line).and_then(|()| to.flush()) {
            Ok(()) => (),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return,
            Err(e) => {
                return error(&format!(
                    "cannot write the output of jail '{}': {}",
                    prefix.trim_end_matches(" | ").trim_end(),
                    reason(&e)
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(text: &[u8]) -> Vec<u8> {
        let mut copied = Vec::new();
        copy_lines("vm | ", text, &mut copied, false);
        copied
    }

    #[test]
    fn a_terminal_gets_no_control_characters() {
        let mut shown = Vec::new();
        copy_lines("vm | ", &b"a\x1b[6n\xff\rb\r\n"[..], &mut shown, true);
        assert_eq!(String::from_utf8_lossy(&shown), "vm | a\\u{1b}[6n\\xff\\rb\n");
    }

    #[test]
    fn each_line_gets_the_prefix_and_a_newline() {
        assert_eq!(copied(b""), b"");
        assert_eq!(copied(b"a\n\nb"), b"vm | a\nvm | \nvm | b\n");
        assert_eq!(copied(b"\xff\n"), b"vm | \xff\n");
    }

    #[test]
    fn an_overlong_line_is_split() {
        let long = vec![b'x'; usize::try_from(LONGEST_LINE).expect("a small number") + 1];
        let copied = copied(&long);
        let lines: Vec<&[u8]> = copied.split(|byte| *byte == b'\n').collect();
        assert_eq!((lines.len(), lines[1]), (3, &b"vm | x"[..]));
    }
}
