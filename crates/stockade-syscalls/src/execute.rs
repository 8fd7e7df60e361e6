//! Becoming another program that need not be the jail's own, with an environment.

use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use crate::program::last_errno;

/// What to become.
#[derive(Debug)]
pub enum Executable {
    /// The first of these files that is there (as seen after all calls before) and may be executed.
    FirstOf(Vec<CString>),
    /// The file behind the descriptor, which has no name where the process is by then.
    Open(OwnedFd),
}

/// A program with its arguments and environment. Every byte it needs is allocated when it is made.
#[derive(Debug)]
pub struct ExecuteWith {
    executable: Executable,
    arguments: Strings,
    environment: Strings,
}

impl ExecuteWith {
    /// `executable` with `arguments`, the first of which is argv0, and an environment of `NAME=VALUE`.
    pub fn new(executable: Executable, arguments: Vec<CString>, environment: Vec<CString>) -> Self {
        Self { executable, arguments: Strings::new(arguments), environment: Strings::new(environment) }
    }

    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        match &self.executable {
            Executable::FirstOf(_) => None,
            Executable::Open(file) => Some(file.as_raw_fd()),
        }
    }

    /// Returns only if it failed; of several files that may not be executed it tells that one may not.
    pub(crate) fn run(&self) -> Errno {
        match &self.executable {
            Executable::Open(file) => self.execute(file.as_raw_fd(), c""),
            Executable::FirstOf(paths) => {
                let mut refused = Errno::NOENT;
                for path in paths {
                    match self.execute(libc::AT_FDCWD, path) {
                        Errno::NOENT | Errno::NOTDIR => (),
                        Errno::ACCESS => refused = Errno::ACCESS,
                        other => return other,
                    }
                }
                refused
            }
        }
    }

    fn execute(&self, directory: RawFd, path: &CStr) -> Errno {
        let flags = if path.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
        // SAFETY: both lists hold pointers to strings closed by a NUL, which `self` owns, and end with a null
        // pointer; `path` outlives the call.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                directory,
                path.as_ptr(),
                self.arguments.pointers.as_ptr(),
                self.environment.pointers.as_ptr(),
                flags,
            )
        };
        last_errno()
    }
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
