//! The skeleton: a mount namespace with next to nothing in it, which a VMM's process copies in the place of the
//! host's.
//!
//! To have mounts of its own a process copies those of the namespace it is in, all of them, and the more a host
//! has the longer that takes. So one namespace that holds a single empty directory is kept, pinned by a mount
//! of its file in the runtime directory. A process on its way into a jail takes its tree, joins the skeleton,
//! and copies that.
//!
//! It belongs to the host and to no jail: [`TemplateMounts::make`] makes it, [`TemplateMounts::remove`] removes it, and
//! with the next boot it is gone. Where it is missing the host's namespace is copied, as ever.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::{CapabilitySet, CpuSet};
use stockade_syscalls::namespace::new_mounts;

use crate::error::{Context, Error, Operation, Result};
use crate::spec::HostPath;
use crate::sys::jail_root::open_directory;
use crate::sys::modes::{PRIVATE, make_directory};

/// Where stockade keeps what serves all jails until the next boot.
pub const RUNTIME_DIRECTORY: &str = "/run/stockade";

/// The file that the skeleton is mounted on.
const PIN: &str = "mounts";

/// The one directory in it.
const EMPTY: &str = "empty";

/// The file system of namespaces.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// The skeleton of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateMounts {
    pin: HostPath,
}

impl TemplateMounts {
    /// The skeleton, if there is one that this process can use; otherwise why not.
    ///
    /// # Errors
    /// One clause, to follow "the mount namespace of the host is copied for each jail: ".
    pub fn find() -> std::result::Result<Self, String> {
        let (directory, pin) = (Path::new(RUNTIME_DIRECTORY), Path::new(RUNTIME_DIRECTORY).join(PIN));
        let pinned = match rustix::fs::statfs(&pin) {
            Ok(facts) => u64::try_from(facts.f_type) == Ok(NSFS_MAGIC),
            Err(Errno::NOENT) => return Err("it was not set up (see 'stockade host-setup')".to_owned()),
            Err(cause) => return Err(format!("{}: {cause}", pin.display())),
        };
        if !pinned {
            return Err(format!("{} pins no namespace", pin.display()));
        }
        check_is_roots_own(directory)?;
        let capabilities = rustix::thread::capabilities(None).map_err(|cause| cause.to_string())?;
        let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_CHROOT;
        if !capabilities.effective.contains(needed) {
            return Err("joining it takes CAP_SYS_ADMIN and CAP_SYS_CHROOT".to_owned());
        }
        Ok(Self { pin: pin.into() })
    }

    /// The file to join it by.
    pub fn pin(&self) -> &HostPath {
        &self.pin
    }

    /// Makes the skeleton, unless it is there. What a call that was killed has left is used.
    ///
    /// # Errors
    /// What the kernel refused, or [`Error::InTheWay`] for a runtime directory that is not root's own.
    pub fn make() -> Result<Self> {
        if let Ok(found) = Self::find() {
            return Ok(found);
        }
        let at: HostPath = Path::new(RUNTIME_DIRECTORY).to_owned().into();
        make_directory(at.as_path(), PRIVATE).context(Operation::CreateDirectory, &at)?;
        check_is_roots_own(at.as_path()).map_err(|what| Error::InTheWay { what })?;
        // The directory below the mount is what all lock; it is root's alone, so nobody holds it for long.
        let below = open(&at)?;
        rustix::fs::flock(&below, FlockOperation::LockExclusive).context(Operation::Open, &at)?;
        if Self::find().is_err() {
            pin(&at)?;
        }
        Self::find().map_err(|_| Errno::NODATA).context(Operation::Mount, at.join(PIN))
    }

    /// Removes the skeleton; jails that were started by it are not touched. False if there was none.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn remove() -> Result<bool> {
        let at: HostPath = Path::new(RUNTIME_DIRECTORY).to_owned().into();
        let mut removed = false;
        for path in [at.join(PIN), at.clone()] {
            match rustix::mount::unmount(path.as_path(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                Ok(()) => removed = true,
                Err(Errno::INVAL | Errno::NOENT) => (),
                Err(cause) => return Err(cause).context(Operation::Unmount, path),
            }
        }
        let Ok(directory) = open(&at) else { return Ok(removed) };
        for (name, flags) in [(PIN, AtFlags::empty()), (EMPTY, AtFlags::REMOVEDIR)] {
            match rustix::fs::unlinkat(&directory, name, flags) {
                Ok(()) | Err(Errno::NOENT) => (),
                Err(cause) => return Err(cause).context(Operation::Remove, at.join(name)),
            }
        }
        rustix::fs::rmdir(at.as_path()).context(Operation::Remove, at).map(|()| true)
    }
}

/// Pins a new skeleton in the runtime directory, which nobody else is working on.
fn pin(at: &HostPath) -> Result<()> {
    let directory = private_mount(at)?;
    let empty = at.join(EMPTY);
    make_directory(empty.as_path(), 0o555).context(Operation::CreateDirectory, &empty)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let file = at.join(PIN);
    rustix::fs::openat(&directory, PIN, flags, Mode::empty()).context(Operation::Open, &file)?;
    let pin_made_on = |processor| {
        let empty = open(&empty)?;
        let mounts = new_mounts(empty, processor).context(Operation::CreateTemplateMounts, at)?;
        let by_descriptor = format!("/proc/self/fd/{}", mounts.as_raw_fd());
        rustix::mount::mount_bind(by_descriptor, file.as_path()).context(Operation::Mount, &file)
    };
    let mut pinned = pin_made_on(None);
    // The kernel mounts only a namespace whose number is above that of this one, and hands numbers out from a
    // range for each processor: where this one is young, only those made on some processors will do.
    for processor in processors() {
        if !matches!(pinned, Err(Error::Operation { cause: Errno::INVAL, .. })) {
            break;
        }
        pinned = pin_made_on(Some(processor));
    }
    pinned
}

/// The processors that this thread may run on.
fn processors() -> impl Iterator<Item = usize> {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU).filter(move |processor| allowed.is_set(*processor))
}

/// Makes the directory a mount of its own that hands nothing on: the kernel takes no mount namespace where
/// another one would get to see it.
fn private_mount(at: &HostPath) -> Result<OwnedFd> {
    if !is_mount(open(at)?.as_fd()).context(Operation::Inspect, at)? {
        rustix::mount::mount_bind(at.as_path(), at.as_path()).context(Operation::Mount, at)?;
    }
    rustix::mount::mount_change(at.as_path(), MountPropagationFlags::PRIVATE)
        .context(Operation::Mount, at)?;
    open(at)
}

fn is_mount(directory: BorrowedFd<'_>) -> std::result::Result<bool, Errno> {
    let facts = rustix::fs::statx(directory, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    Ok(facts.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Nobody but root may put anything there.
fn check_is_roots_own(directory: &Path) -> std::result::Result<(), String> {
    let facts = std::fs::symlink_metadata(directory).map_err(|e| format!("{}: {e}", directory.display()))?;
    if facts.is_dir() && facts.uid() == 0 && facts.permissions().mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(format!("{} that is not root's own", directory.display()))
}

fn open(directory: &HostPath) -> Result<OwnedFd> {
    open_directory(CWD, directory.as_path(), ResolveFlags::NO_SYMLINKS).context(Operation::Open, directory)
}
