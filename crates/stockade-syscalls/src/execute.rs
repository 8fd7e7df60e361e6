//! Executing any program in a jail through the executor, a small program in memory (`programs/exec.rs`).

use std::ffi::{CString, c_char};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;

use crate::program::last_errno;
use crate::sealed::sealed_bytes;

/// The executor, compiled by the build script.
const ELF: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/exec"));

/// The file descriptor of the channel in the executor.
const CHANNEL: RawFd = 3;
/// The file descriptor of an open program in the executor.
const PROGRAM: RawFd = 4;
/// The number of empty arguments that the executor needs in front of the program's.
const SLOTS: usize = 10;

/// The program file to execute.
#[derive(Debug)]
pub enum Executable {
    /// The first of these paths with an executable file, resolved after all earlier calls.
    FirstOf(Vec<CString>),
    /// An open file, which needs no name inside the jail.
    Open(OwnedFd),
}

/// A program with its arguments and environment; its constructor allocates all memory that the exec needs.
///
/// The process executes the executor first, a sealed program in memory. The executor executes the requested program;
/// it executes a file of the jail from a sealed copy. Scripts and ELF interpreters of the jail therefore cannot reach
/// the launcher's program, and no process of the same uid can trace the result.
#[derive(Debug)]
pub struct ExecuteWith {
    executor: OwnedFd,
    program: Option<OwnedFd>,
    arguments: Strings,
    environment: Strings,
}

impl ExecuteWith {
    /// Creates the exec of `executable`.
    ///
    /// # Arguments
    /// * `arguments`: the first is argv0.
    /// * `environment`: strings of the form `NAME=VALUE`.
    /// * `file_size`: the largest file that the program may write, in bytes; `None` keeps the current limit. The
    ///   executor sets it last, because it would limit the copy of the program too.
    ///
    /// # Errors
    /// Returns the errors of creating a file in memory.
    pub fn new(
        executable: Executable,
        arguments: Vec<CString>,
        environment: Vec<CString>,
        file_size: Option<u64>,
    ) -> Result<Self, Errno> {
        let (paths, program) = match executable {
            Executable::FirstOf(paths) => (paths, None),
            Executable::Open(file) => (Vec::new(), Some(file)),
        };
        let limit = file_size.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
        let limit = CString::new(limit).map_err(|_| Errno::INVAL)?;
        let before = [c"stockade-exec".to_owned(), limit].into_iter().chain(paths);
        let empty = std::iter::repeat_n(CString::default(), 1 + SLOTS);
        let arguments = before.chain(empty).chain(arguments).collect();
        // Above the standard streams, which a program may replace.
        let executor = rustix::io::fcntl_dupfd_cloexec(sealed_bytes(c"stockade-exec", ELF)?, PROGRAM + 1)?;
        Ok(Self {
            executor,
            program,
            arguments: Strings::new(arguments),
            environment: Strings::new(environment),
        })
    }

    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        [Some(&self.executor), self.program.as_ref()].into_iter().flatten().map(AsRawFd::as_raw_fd).collect()
    }

    /// Executes the executor; returns only on failure. The executor sends its own failures through `channel`.
    pub(crate) fn run(&self, channel: BorrowedFd<'_>) -> Errno {
        match self.arrange(channel) {
            Ok(executor) => self.execute(&executor),
            Err(errno) => errno,
        }
    }

    /// Moves every file descriptor to the number that the executor expects.
    fn arrange(&self, channel: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        // First above all of those numbers.
        let clear = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, PROGRAM + 1);
        let executor = clear(self.executor.as_fd())?;
        let (channel, program) =
            (clear(channel)?, self.program.as_ref().map(|program| clear(program.as_fd())));
        let program = program.transpose()?;
        put(&channel, CHANNEL)?;
        program.map_or(Ok(()), |program| put(&program, PROGRAM))?;
        Ok(executor)
    }

    fn execute(&self, executor: &OwnedFd) -> Errno {
        // SAFETY: both lists hold pointers to NUL-terminated strings, which `self` owns, and end with a null
        // pointer; the file descriptor is open.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                executor.as_raw_fd(),
                c"".as_ptr(),
                self.arguments.pointers.as_ptr(),
                self.environment.pointers.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        last_errno()
    }
}

/// Duplicates `fd` to `number`; the duplicate survives the exec.
pub(crate) fn put(fd: &OwnedFd, number: RawFd) -> Result<(), Errno> {
    // SAFETY: this process was cloned to execute another program, and no code in it uses the file descriptor that
    // had this number before.
    if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Strings in the form that `execve` takes.
#[derive(Debug)]
struct Strings {
    pointers: Vec<*const c_char>,
    /// The pointers' targets. They are on the heap, so a move of this value does not move them.
    _texts: Vec<CString>,
}

impl Strings {
    fn new(texts: Vec<CString>) -> Self {
        let pointers = texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        Self { pointers, _texts: texts }
    }
}

// SAFETY: the pointers lead to text that moves to the other thread with them and that is never changed.
unsafe impl Send for Strings {}
