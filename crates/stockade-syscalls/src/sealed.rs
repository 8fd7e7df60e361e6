//! Programs in memory: files without a name that are executed and never read, written or changed.
//!
//! A file that its process may not read makes that process undumpable: another process of the same uid can neither
//! trace it, nor read its memory, nor open its executable or descriptors through `/proc`.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, SealFlags};
use rustix::io::Errno;

/// Execution for all, and nothing else.
const EXECUTE_ONLY: Mode = Mode::from_raw_mode(0o111);

/// Makes a program of what `fill` writes into the file.
///
/// # Errors
/// Those of `fill`, and of `memfd_create` (EACCES where `vm.memfd_noexec` forbids it), `fchmod` and `fcntl`.
pub fn sealed_program(
    name: &CStr,
    fill: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let program = match rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 every one of these may be executed.
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        made => made,
    }?;
    fill(program.as_fd())?;
    rustix::fs::fchmod(&program, EXECUTE_ONLY)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&program, seals)?;
    Ok(program)
}

/// A program of these bytes.
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
    fn a_sealed_program_has_no_mode_but_execution_and_takes_no_byte_more() {
        let program = sealed_bytes(c"test", b"#!").expect("a memory file");
        assert_eq!(rustix::fs::fstat(&program).expect("its facts").st_mode & 0o7777, 0o111);
        assert_eq!(rustix::io::write(&program, b"x"), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&program, 0), Err(Errno::PERM));
        assert_eq!(rustix::fs::fcntl_add_seals(&program, SealFlags::FUTURE_WRITE), Err(Errno::PERM));
    }
}
