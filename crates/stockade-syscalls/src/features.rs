//! Probes for system calls that the kernel has and permits.

use std::ffi::c_long;

use rustix::io::Errno;

use crate::program::last_errno;

/// A system call that jails need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// `clone3`, from Linux 5.3.
    Clone3,
    /// `close_range`, from Linux 5.9.
    CloseRange,
    /// `mount_setattr`, from Linux 5.12.
    MountSetattr,
    /// `open_tree`, from Linux 5.2.
    OpenTree,
    /// `openat2`, from Linux 5.6.
    Openat2,
    /// `pidfd_open`, from Linux 5.3.
    PidfdOpen,
}

impl Feature {
    /// All features.
    pub const ALL: [Self; 6] =
        [Self::Clone3, Self::CloseRange, Self::MountSetattr, Self::OpenTree, Self::Openat2, Self::PidfdOpen];

    /// Its name, and the first version of Linux that has it.
    pub fn name_and_version(self) -> (&'static str, &'static str) {
        match self {
            Self::Clone3 => ("clone3", "5.3"),
            Self::CloseRange => ("close_range", "5.9"),
            Self::MountSetattr => ("mount_setattr", "5.12"),
            Self::OpenTree => ("open_tree", "5.2"),
            Self::Openat2 => ("openat2", "5.6"),
            Self::PidfdOpen => ("pidfd_open", "5.3"),
        }
    }

    /// Makes the call with invalid arguments, so that it has no effect. A seccomp filter may kill the process for it.
    ///
    /// # Errors
    /// Returns ENOSYS if the kernel lacks the call, EPERM if a seccomp filter refuses it.
    pub fn probe(self) -> Result<(), Errno> {
        let number = match self {
            Self::Clone3 => libc::SYS_clone3,
            Self::CloseRange => libc::SYS_close_range,
            Self::MountSetattr => libc::SYS_mount_setattr,
            Self::OpenTree => libc::SYS_open_tree,
            Self::Openat2 => libc::SYS_openat2,
            Self::PidfdOpen => libc::SYS_pidfd_open,
        };
        // Invalid for each call: a file descriptor and flags without meaning, an empty range of file descriptors, no
        // pid, a structure of size 0, no memory.
        let arguments: [c_long; 4] = match self {
            Self::Clone3 => [0; 4],
            Self::CloseRange => [9, 8, 0, 0],
            _ => [-1, 0, -1, 0],
        };
        let [first, second, third, fourth] = arguments;
        // SAFETY: every call refuses these arguments before it acts, and none of them is a pointer to memory.
        let refused = unsafe { libc::syscall(number, first, second, third, fourth, 0) };
        match if refused < 0 { last_errno() } else { Errno::INVAL } {
            missing @ (Errno::NOSYS | Errno::PERM) => Err(missing),
            _ => Ok(()),
        }
    }
}

/// The version of Landlock; `None` if the kernel has none.
///
/// # Errors
/// Returns the other errors of `landlock_create_ruleset`: EPERM under a seccomp filter.
pub fn landlock() -> Result<Option<u32>, Errno> {
    const ONLY_THE_VERSION: c_long = 1;
    let nothing: c_long = 0;
    // SAFETY: with this flag the call takes no memory and creates nothing.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, nothing, ONLY_THE_VERSION) };
    match u32::try_from(version) {
        Ok(version) => Ok(Some(version).filter(|version| *version > 0)),
        Err(_) => match last_errno() {
            // Not compiled in, or not enabled at boot.
            Errno::NOSYS | Errno::OPNOTSUPP => Ok(None),
            cause => Err(cause),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_find_every_feature_and_close_nothing() {
        // Low and high numbers; other tests of this process open and close files concurrently.
        let null = std::fs::File::open("/dev/null").expect("open /dev/null");
        let held =
            [200, 900].map(|least| rustix::io::fcntl_dupfd_cloexec(&null, least).expect("a duplicate"));
        for feature in Feature::ALL {
            assert_ne!(feature.probe(), Err(Errno::NOSYS), "{feature:?}: stockade needs it");
        }
        for fd in held.iter().map(std::os::fd::AsFd::as_fd).chain([std::os::fd::AsFd::as_fd(&null)]) {
            assert!(rustix::fs::fstat(fd).is_ok(), "{fd:?} was closed");
        }
    }
}
