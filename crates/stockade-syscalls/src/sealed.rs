//! Programs in memory: files without a name that can be executed, and neither read nor changed.
//!
//! A process whose program it cannot read is undumpable. Another process of the same uid can neither trace it, nor
//! read its memory, nor open its executable or its file descriptors through `/proc`.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, SealFlags};
use rustix::io::Errno;

/// Execution by all users, and no other permission.
const EXECUTE_ONLY: Mode = Mode::from_raw_mode(0o111);

/// Creates a sealed program with the contents that `fill` writes into the file.
///
/// # Errors
/// Returns the errors of `fill`, `memfd_create` (EACCES if `vm.memfd_noexec` forbids it), `fchmod` and `fcntl`.
pub fn sealed_program(
    name: &CStr,
    fill: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let program = match rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC) {
        // EINVAL: before Linux 6.3 the flag is unknown, and every memory file is executable.
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        created => created,
    }?;
    fill(program.as_fd())?;
    rustix::fs::fchmod(&program, EXECUTE_ONLY)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&program, seals)?;
    Ok(program)
}

/// Creates a sealed program of these bytes.
pub(crate) fn sealed_bytes(name: &CStr, bytes: &[u8]) -> Result<OwnedFd, Errno> {
    let written = sealed_program(name, |file| match rustix::io::write(file, bytes)? {
        all if all == bytes.len() => Ok(()),
        _ => Err(Errno::NOSPC.into()),
    });
    written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_program_is_execute_only_and_cannot_change() {
        let program = sealed_bytes(c"test", b"#!").expect("a memory file");
        assert_eq!(rustix::fs::fstat(&program).expect("its status").st_mode & 0o7777, 0o111);
        assert_eq!(rustix::io::write(&program, b"x"), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&program, 0), Err(Errno::PERM));
        assert_eq!(rustix::fs::fcntl_add_seals(&program, SealFlags::FUTURE_WRITE), Err(Errno::PERM));
    }
}
