//! The template mount namespace: almost empty, to be copied by a VMM's process instead of the host's.
//!
//! A process gets its own mount namespace as a copy of its current one, with all mounts in it. The copy takes the
//! longer the more mounts the host has. So a mount in the runtime directory pins a namespace with a single empty
//! directory. A process on its way into a jail copies the jail's tree, joins the template namespace, and copies that.
//!
//! The template namespace belongs to the host and to no jail. [`TemplateMounts::make`] creates it,
//! [`TemplateMounts::remove`] removes it, and it does not survive a reboot. Without it the host's namespace is copied.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::{CapabilitySet, CpuSet};
use stockade_syscalls::descriptors::fd_path;
use stockade_syscalls::namespace::new_mounts;

use crate::error::{Context, Error, Operation, Result};
use crate::spec::{HostPath, Reason};
use crate::sys::flock;
use crate::sys::modes::{PRIVATE, is_roots_own, make_directory};
use crate::sys::mounts::is_mount_point;
use crate::sys::open::open_directory;
use crate::sys::procfs::OWN_MOUNTS;

/// The directory for objects that serve all jails until the next boot.
pub const RUNTIME_DIRECTORY: &str = "/run/stockade";

/// The file on which the template namespace is mounted.
const PIN: &str = "mounts";

/// The single directory in the template namespace.
const EMPTY: &str = "empty";

/// The `statfs` type of namespaces.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// The template mount namespace of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateMounts {
    pin: HostPath,
}

impl TemplateMounts {
    /// Finds the template namespace, if it exists and this process can use it.
    ///
    /// # Errors
    /// Returns the reason as a clause, to follow "the mount namespace of the host is copied for each jail: ".
    pub fn find() -> std::result::Result<Self, String> {
        let (directory, pin) = (Path::new(RUNTIME_DIRECTORY), Path::new(RUNTIME_DIRECTORY).join(PIN));
        let pinned = match rustix::fs::statfs(&pin) {
            Ok(facts) => u64::try_from(facts.f_type) == Ok(NSFS_MAGIC),
            Err(Errno::NOENT) => return Err("it was not set up (see 'stockade host-setup')".to_owned()),
            Err(cause) => return Err(format!("cannot inspect '{}': {}", pin.display(), Reason(cause))),
        };
        if !pinned {
            return Err(format!("'{}' pins no namespace", pin.display()));
        }
        check_is_roots_own(directory)?;
        let capabilities = rustix::thread::capabilities(None).map_err(|cause| Reason(cause).to_string())?;
        let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_CHROOT;
        if !capabilities.effective.contains(needed) {
            return Err("joining it needs CAP_SYS_ADMIN and CAP_SYS_CHROOT".to_owned());
        }
        Ok(Self { pin: pin.into() })
    }

    /// The file by which a process joins the namespace.
    pub fn pin(&self) -> &HostPath {
        &self.pin
    }

    /// Creates the template namespace unless it exists. The remains of a killed call are used.
    ///
    /// # Errors
    /// * [`Error::InTheWay`] if the runtime directory is not root's own
    /// * [`Error::Operation`] if the kernel refuses an operation
    pub fn make() -> Result<Self> {
        if let Ok(found) = Self::find() {
            return Ok(found);
        }
        // The template namespace is created from it.
        std::fs::metadata(OWN_MOUNTS).context(Operation::Inspect, OWN_MOUNTS)?;
        let at: HostPath = Path::new(RUNTIME_DIRECTORY).to_owned().into();
        make_directory(at.as_path(), PRIVATE).context(Operation::CreateDirectory, &at)?;
        check_is_roots_own(at.as_path()).map_err(|what| Error::InTheWay { what })?;
        // All callers lock the directory below the mount. It is root's alone, so no other user can hold the lock.
        let below = open(&at)?;
        flock::lock(&below).context(Operation::Lock, &at)?;
        if Self::find().is_err() {
            pin(&at)?;
        }
        Self::find().map_err(|_| Errno::NODATA).context(Operation::Mount, at.join(PIN))
    }

    /// Removes the template namespace, without an effect on existing jails. False if there was none.
    ///
    /// # Errors
    /// Returns [`Error::Operation`] if the kernel refuses to unmount or to remove a file.
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

/// Pins a new template namespace in the locked runtime directory.
fn pin(at: &HostPath) -> Result<()> {
    let directory = private_mount(at)?;
    let empty = at.join(EMPTY);
    make_directory(empty.as_path(), 0o555).context(Operation::CreateDirectory, &empty)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let file = at.join(PIN);
    rustix::fs::openat(&directory, PIN, flags, Mode::empty()).context(Operation::Open, &file)?;
    let pin_created_on = |processor| {
        let empty = open(&empty)?;
        let mounts = new_mounts(empty, processor).context(Operation::CreateTemplateMounts, at)?;
        let by_descriptor = fd_path(&mounts);
        rustix::mount::mount_bind(by_descriptor, file.as_path()).context(Operation::Mount, &file)
    };
    let mut pinned = pin_created_on(None);
    // The kernel mounts only a namespace whose number is above that of the current one (EINVAL otherwise). It assigns
    // numbers from a range per processor. So a young current namespace needs one created on certain processors.
    for processor in processors() {
        if !matches!(pinned, Err(Error::Operation { cause: Errno::INVAL, .. })) {
            break;
        }
        pinned = pin_created_on(Some(processor));
    }
    pinned
}

/// The processors on which this thread may run.
fn processors() -> impl Iterator<Item = usize> {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU).filter(move |processor| allowed.is_set(*processor))
}

/// Makes the directory a private mount: the kernel mounts no mount namespace on a mount that propagates to another one.
fn private_mount(at: &HostPath) -> Result<OwnedFd> {
    if !is_mount_point(open(at)?.as_fd()).context(Operation::Inspect, at)? {
        rustix::mount::mount_bind(at.as_path(), at.as_path()).context(Operation::Mount, at)?;
    }
    rustix::mount::mount_change(at.as_path(), MountPropagationFlags::PRIVATE)
        .context(Operation::Mount, at)?;
    open(at)
}

/// Refuses a directory in which another user than root may create files.
fn check_is_roots_own(directory: &Path) -> std::result::Result<(), String> {
    let refused = |cause| format!("cannot inspect '{}': {}", directory.display(), Reason(cause));
    let facts = rustix::fs::lstat(directory).map_err(refused)?;
    if FileType::from_raw_mode(facts.st_mode).is_dir() && is_roots_own(&facts) {
        return Ok(());
    }
    Err(format!("a directory '{}' that is not root's own", directory.display()))
}

fn open(directory: &HostPath) -> Result<OwnedFd> {
    open_directory(CWD, directory.as_path(), ResolveFlags::NO_SYMLINKS).context(Operation::Open, directory)
}
