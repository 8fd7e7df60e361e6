//! Why the kernel finds no file although the executable is in the jail.

use std::fs::File;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::spec::JailPath;
use crate::spec::libraries::Interpreter;
use crate::sys::open::INSIDE;

/// The interpreter that an executable in a jail names and that is not in the jail, if that can be seen.
///
/// # Arguments
/// `root`: the jail's root directory
pub(crate) fn missing_interpreter(root: BorrowedFd<'_>, executable: &JailPath) -> Option<Interpreter> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(root, executable.relative(), flags, Mode::empty(), INSIDE).ok()?;
    let named = Interpreter::named_by(File::from(file))?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match rustix::fs::openat2(root, named.path(), flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        Err(Errno::NOENT | Errno::NOTDIR) => Some(named),
        Ok(_) | Err(_) => None,
    }
}
