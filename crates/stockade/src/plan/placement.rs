//! The choice of the placement method, from the source's kind, mount, owner and mode.

use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, StatVfsMountFlags, StatxFlags, statx};
use rustix::io::Errno;

use crate::entry::{Bind, Inode};
use crate::error::{Context, Operation, PlacementError, Result};
use crate::plan::links::expect_links;
use crate::spec::{FilePrivileges, HostPath, How, Owner, Placement, SpecError};
use crate::steps::{DeviceNode, FileHow, PlacedFile, PlacedTree, Step, may_be_linked, share_with};
use crate::sys::access::{EXECUTE, Permissions, READ, WRITE};
use crate::sys::obstacle::Obstacle;
use crate::sys::open::open_source;

/// Chooses the step to place a file, directory or device into a jail.
///
/// # Arguments
/// * `jail`: the owner of the jail
/// * `near`: a directory on the jail's mount: its root, or the existing part of the way to it
/// * `placement`: the request
///
/// # Errors
/// * [`SpecError::NotFound`] if the source does not exist
/// * [`SpecError::ReadOnlyOwner`] if a read-only placement would belong to the jail's own uid
/// * [`PlacementError`] if the requested method does not fit the source, or if the jail's uid owns a symbolic link on the
///   way to it
pub fn decide_placement(jail: Owner, near: &HostPath, placement: &Placement) -> Result<Step> {
    let source = HostPath::existing(&placement.source)?;
    let path = placement.target_of(&source)?;
    expect_links(&placement.source, |uid| match placement.how {
        // The owner of a symbolic link could have any file given away.
        How::Share => uid == 0,
        _ => uid == 0 || uid != jail.uid,
    })?;
    let facts = rustix::fs::stat(source.as_path()).context(Operation::Inspect, &source)?;
    let read_only = placement.read_only;
    let owner = owner_of(jail, placement)?;
    let decision = Decision { source: &source, near, facts: &facts, jail, owner, read_only };
    let kind = FileType::from_raw_mode(facts.st_mode);
    let device = matches!(kind, FileType::BlockDevice | FileType::CharacterDevice);
    let how = match placement.how {
        // A socket or named pipe cannot be copied.
        How::Auto if may_be_linked(kind) && !kind.is_file() => {
            if decision.check_link(kind).is_ok() {
                How::Link
            } else {
                How::Bind
            }
        }
        how => how,
    };
    match how {
        How::Auto | How::Node if device => {
            decision.check_devices()?;
            Ok(DeviceNode {
                path,
                block: kind == FileType::BlockDevice,
                major: rustix::fs::major(facts.st_rdev),
                minor: rustix::fs::minor(facts.st_rdev),
                owner,
                optional: false,
                read_only,
            }
            .into())
        }
        How::Bind if !device => {
            decision.check_bind(placement.owner)?;
            decision.check_access(kind, "bind")?;
            Ok(Bind { source, inode: Inode::of(&facts), path, read_only }.into())
        }
        How::Auto | How::Copy if kind.is_dir() => Ok(PlacedTree { source, path, owner, read_only }.into()),
        How::Auto | How::Copy | How::Reflink if kind.is_file() => {
            let how = decision.file(how)?;
            Ok(PlacedFile { source, path, owner, how, expect_plain: false, read_only }.into())
        }
        How::Link if may_be_linked(kind) => {
            decision.check_link(kind)?;
            Ok(PlacedFile { source, path, owner, how: FileHow::Link, expect_plain: false, read_only }.into())
        }
        How::Share if may_be_linked(kind) => {
            decision.check_share()?;
            Ok(PlacedFile { source, path, owner, how: FileHow::Share, expect_plain: false, read_only }.into())
        }
        how => Err(PlacementError::UnsupportedMethod(source.as_path().to_owned(), how).into()),
    }
}

/// The owner of the placement. A read-only one belongs to root, since its owner could change its mode.
pub(crate) fn owner_of(jail: Owner, placement: &Placement) -> Result<Owner> {
    let owner = match placement.owner {
        None if placement.read_only => Owner { uid: 0, ..jail },
        None => jail,
        Some(owner) => owner,
    };
    if placement.read_only && owner.uid == jail.uid {
        return Err(SpecError::ReadOnlyOwner(owner).into());
    }
    Ok(owner)
}

/// The facts of a decision.
struct Decision<'a> {
    source: &'a HostPath,
    near: &'a HostPath,
    facts: &'a Stat,
    jail: Owner,
    owner: Owner,
    read_only: bool,
}

impl Decision<'_> {
    fn file(&self, how: How) -> Result<FileHow> {
        match how {
            How::Reflink => {
                self.try_reflink().map_err(|cause| PlacementError::Reflink(self.path(), cause))?;
                Ok(FileHow::Reflink)
            }
            How::Auto if self.try_reflink().is_ok() => Ok(FileHow::Reflink),
            How::Auto if self.check_link(FileType::RegularFile).is_ok() => Ok(FileHow::Link),
            _ => Ok(FileHow::Copy),
        }
    }

    fn check_link(&self, kind: FileType) -> Result<()> {
        if !self.owner_fits() {
            let refused =
                if self.read_only { PlacementError::LinkReadOnly } else { PlacementError::LinkOwner };
            let owner = if self.read_only { self.jail } else { self.owner };
            return Err(refused(self.path(), owner).into());
        }
        self.check_linkable()?;
        self.check_access(kind, "hard link")
    }

    /// Refuses a file that cannot be shared, or only with others than this jail.
    fn check_share(&self) -> Result<()> {
        if self.read_only {
            return Err(PlacementError::ShareReadOnly(self.path()).into());
        }
        share_with(self.source.as_path(), self.facts, self.owner)?;
        self.check_linkable()
    }

    /// Refuses a file to which no hard link can be created in the jail.
    fn check_linkable(&self) -> Result<()> {
        if !self.same_mount()? {
            return Err(PlacementError::LinkElsewhere(self.path()).into());
        }
        let privileges = self.privileges();
        if privileges.forbid_link() {
            return Err(PlacementError::LinkPrivileges(self.path(), privileges).into());
        }
        match self.obstacle() {
            Some(obstacle) => Err(PlacementError::LinkUnchangeable(self.path(), obstacle.to_string()).into()),
            None => Ok(()),
        }
    }

    /// The attribute of the source with which the kernel creates no hard link to it.
    fn obstacle(&self) -> Option<Obstacle> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = rustix::fs::open(self.source.as_path(), flags, Mode::empty()).ok()?;
        Obstacle::of(source.as_fd())
    }

    /// The privileges that a hard link would keep. The step checks them again on the open file.
    fn privileges(&self) -> FilePrivileges {
        FilePrivileges::at(self.source.as_path(), self.facts.st_mode)
    }

    /// Whether a hard link would have the right owner and mode, since the jail must not change those of the host's
    /// file.
    fn owner_fits(&self) -> bool {
        let (uid, gid, mode) = (self.facts.st_uid, self.facts.st_gid, self.facts.st_mode);
        if !self.read_only {
            return (uid, gid) == (self.owner.uid, self.owner.gid);
        }
        // With an access control list the group bits are its mask, the maximum for every entry.
        let read = if gid == self.jail.gid { 0o040 } else { 0o004 };
        uid != self.jail.uid && mode & 0o022 == 0 && mode & read != 0
    }

    /// Whether source and jail are on the same mount, as a hard link requires.
    fn same_mount(&self) -> Result<bool> {
        let mount = |path: &HostPath| {
            let facts = statx(CWD, path.as_path(), AtFlags::empty(), StatxFlags::MNT_ID);
            facts.map(|facts| facts.stx_mnt_id).context(Operation::Inspect, path)
        };
        Ok(mount(self.source)? == mount(self.near)?)
    }

    /// Tries a reflink to an unnamed file: only an attempt shows whether the filesystem shares blocks.
    fn try_reflink(&self) -> std::result::Result<(), Errno> {
        let source = open_source(self.source.as_path())?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let trial = rustix::fs::open(self.near.as_path(), flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::ioctl_ficlone(trial.as_fd(), source.as_fd())
    }

    /// Refuses a file or directory that the jail's uid cannot open in any way, if the placement keeps its mode.
    ///
    /// Directories above it do not matter: in the jail it has another path.
    fn check_access(&self, kind: FileType, how: &'static str) -> Result<()> {
        let wanted = match kind {
            FileType::Directory => EXECUTE,
            // A connection to a socket writes.
            FileType::Socket => WRITE,
            _ if self.read_only => READ | EXECUTE,
            _ => READ | WRITE | EXECUTE,
        };
        let permissions = Permissions::new(self.source.as_path(), self.facts);
        if permissions.context(Operation::Inspect, self.source)?.grant_any(self.jail, wanted) {
            return Ok(());
        }
        Err(PlacementError::Unopenable { path: self.path(), by: self.jail, how }.into())
    }

    /// Refuses a device node on a filesystem on which no device can be opened.
    fn check_devices(&self) -> Result<()> {
        let mount = rustix::fs::statvfs(self.near.as_path()).context(Operation::Inspect, self.near)?;
        if mount.f_flag.contains(StatVfsMountFlags::NODEV) {
            return Err(PlacementError::NoDevices(self.path(), self.near.as_path().to_owned()).into());
        }
        Ok(())
    }

    /// Refuses a bind with an owner, which would change the host's file, and a bind of a directory that contains the
    /// jail.
    fn check_bind(&self, owner: Option<Owner>) -> Result<()> {
        if owner.is_some() {
            return Err(PlacementError::BindOwner(self.path()).into());
        }
        if self.near.as_path().starts_with(self.source) {
            return Err(PlacementError::TreeHoldsJail(self.path()).into());
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.source.as_path().to_owned()
    }
}

/// The method of a placement's step.
pub(crate) fn method_of(step: &Step) -> How {
    match step {
        Step::PlacedFile(PlacedFile { how: FileHow::Link, .. }) => How::Link,
        Step::PlacedFile(PlacedFile { how: FileHow::Share, .. }) => How::Share,
        Step::PlacedFile(PlacedFile { how: FileHow::Reflink, .. }) => How::Reflink,
        Step::DeviceNode(_) => How::Node,
        Step::Bind(_) => How::Bind,
        _ => How::Copy,
    }
}
