//! What several VMMs write to one terminal, each line behind the id of its jail.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use stockade::Streams;
use stockade::spec::JailId;

use crate::terminal::output::{Failure, error};
use crate::terminal::width;

/// A line that is longer is told as several.
const LONGEST_LINE: u64 = 64 << 10;

/// How long what was written last may take to be told. Only a process that has got out of its jail holds a stream
/// for longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Two threads that copy what one VMM writes; nothing comes from them but their end.
#[derive(Debug)]
pub(crate) struct Prefixed(Receiver<()>);

impl Prefixed {
    /// Streams for a VMM: nothing to read from, and what it writes comes to ours of the same kind.
    ///
    /// # Arguments
    /// `width` is that of the longest id, in cells of a terminal.
    pub(crate) fn new(id: &JailId, width: usize) -> Result<(Streams, Self), Failure> {
        let before = format!("{} | ", width::padded(id.as_str(), width));
        let failed = |e: io::Error| Failure::new(format!("failed to make the VMM's streams: {e}"));
        let stdin = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let (alive, end) = channel();
        let stdout = copy(before.clone(), io::stdout(), alive.clone()).map_err(failed)?;
        let stderr = copy(before, io::stderr(), alive).map_err(failed)?;
        let streams = Streams {
            stdin: Some(stdin.map_err(|e| failed(e.into()))?),
            stdout: Some(stdout),
            stderr: Some(stderr),
        };
        Ok((streams, Self(end)))
    }

    /// Waits until everything is told, when the jail is gone and nobody has the streams any more.
    pub(crate) fn finish(self) {
        let _ = self.0.recv_timeout(PATIENCE);
    }
}

/// A pipe, and a thread that tells what is written to it and drops `alive` at its end.
fn copy(before: String, to: impl Write + Send + 'static, alive: Sender<()>) -> io::Result<OwnedFd> {
    let (from, written) = pipe_with(PipeFlags::CLOEXEC)?;
    Builder::new().name("output".to_owned()).spawn(move || {
        copy_lines(&before, File::from(from), to);
        drop(alive);
    })?;
    Ok(written)
}

fn copy_lines(before: &str, from: impl Read, mut to: impl Write) {
    let mut from = BufReader::new(from);
    loop {
        let mut line = before.as_bytes().to_vec();
        match from.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) if line.ends_with(b"\n") => (),
            Ok(_) => line.push(b'\n'),
        }
        // In one write, so that lines of others do not come between. Where nobody reads, the VMM is told so when it
        // writes next, as one VMM alone that has our streams itself.
        match to.write_all(&line).and_then(|()| to.flush()) {
            Ok(()) => (),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return,
            Err(e) => {
                return error(&format!(
                    "failed to write what {} writes: {e}",
                    before.trim_end_matches(" | ").trim_end()
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
        copy_lines("vm | ", text, &mut copied);
        copied
    }

    #[test]
    fn every_line_has_its_prefix_and_its_end() {
        assert_eq!(copied(b""), b"");
        assert_eq!(copied(b"a\n\nb"), b"vm | a\nvm | \nvm | b\n");
        assert_eq!(copied(b"\xff\n"), b"vm | \xff\n");
    }

    #[test]
    fn a_line_without_end_is_told_in_parts() {
        let long = vec![b'x'; usize::try_from(LONGEST_LINE).expect("a small number") + 1];
        let copied = copied(&long);
        let lines: Vec<&[u8]> = copied.split(|byte| *byte == b'\n').collect();
        assert_eq!((lines.len(), lines[1]), (3, &b"vm | x"[..]));
    }
}
