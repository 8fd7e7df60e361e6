//! Becoming another program than the jail's own, by way of a small program in memory (`programs/exec.rs`).

use std::ffi::{CString, c_char};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;

use crate::program::last_errno;
use crate::sealed::sealed_bytes;

/// The program that executes the other one, compiled by the build script.
const ELF: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/exec"));

/// The descriptors at which it expects the link and an open program.
const LINK: RawFd = 3;
const PROGRAM: RawFd = 4;
/// The places that it wants free in front of the program's arguments.
const SLOTS: usize = 10;

/// What to become.
#[derive(Debug)]
pub enum Executable {
    /// The first of these files that is there (as seen after all calls before) and may be executed.
    FirstOf(Vec<CString>),
    /// The file behind the descriptor, which has no name where the process is by then.
    Open(OwnedFd),
}

/// A program with its arguments and environment. Every byte it needs is allocated when it is made.
///
/// The process becomes a sealed program in memory first, and that executes what was asked for: a file of the jail
/// from a sealed copy. So nothing that the jail executes, scripts and ELF interpreters among them, can lead to this
/// program, and no process of the same uid can trace the one that comes of it.
#[derive(Debug)]
pub struct ExecuteWith {
    executor: OwnedFd,
    program: Option<OwnedFd>,
    arguments: Strings,
    environment: Strings,
}

impl ExecuteWith {
    /// `executable` with `arguments`, the first of which is argv0, and an environment of `NAME=VALUE`.
    ///
    /// # Arguments
    /// `file_size` is the largest file, in bytes, that the program may write; `None` leaves the limit as it is. It is set
    /// last, since it would limit the copy of the program too.
    ///
    /// # Errors
    /// What the kernel says of making a file in memory.
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
        // Clear of the standard streams, which a program may replace.
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

    /// Returns only if it failed. What fails afterwards is reported at `link`.
    pub(crate) fn run(&self, link: BorrowedFd<'_>) -> Errno {
        match self.put_in_place(link) {
            Ok(executor) => self.execute(&executor),
            Err(errno) => errno,
        }
    }

    /// Puts every descriptor where the executor expects it.
    fn put_in_place(&self, link: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
        // Out of the way of their places first.
        let clear = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, PROGRAM + 1);
        let executor = clear(self.executor.as_fd())?;
        let (link, program) = (clear(link)?, self.program.as_ref().map(|program| clear(program.as_fd())));
        let program = program.transpose()?;
        put(&link, LINK)?;
        program.map_or(Ok(()), |program| put(&program, PROGRAM))?;
        Ok(executor)
    }

    fn execute(&self, executor: &OwnedFd) -> Errno {
        // SAFETY: both lists hold pointers to strings closed by a NUL, which `self` owns, and end with a null
        // pointer; the descriptor is open.
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

/// Makes `number` a descriptor of the same file that survives the exec.
pub(crate) fn put(fd: &OwnedFd, number: RawFd) -> Result<(), Errno> {
    // SAFETY: this process was cloned to become another program, and nothing in it uses the descriptor that
    // had this number before.
    if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Strings as `execve` wants them.
#[derive(Debug)]
struct Strings {
    pointers: Vec<*const c_char>,
    /// What the pointers lead to: text on the heap, which stays where it is when this is moved.
    _texts: Vec<CString>,
}

impl Strings {
    fn new(texts: Vec<CString>) -> Self {
        let pointers = texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect();
        Self { pointers, _texts: texts }
    }
}

// SAFETY: the pointers lead to text that goes along with them and that nobody changes.
unsafe impl Send for Strings {}
