//! The decision how something gets into a jail, from what it is, where it is, and whose.

use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, StatxFlags, statx};
use rustix::io::Errno;

use crate::entry::{Bind, Inode};
use crate::error::{Context, Operation, PlacementError, Result};
use crate::spec::{FilePrivileges, HostPath, How, Owner, Placement, SpecError};
use crate::steps::{DeviceNode, FileHow, PlacedFile, PlacedTree, Step};

/// Decides how a file, directory or device gets into a jail.
///
/// # Arguments
/// `jail` owns the jail; `near` is a directory on the mount that the jail is on: its root, or what exists of
/// the way there.
///
/// # Errors
/// [`SpecError::NotFound`] for a missing source, [`SpecError::NotAFile`] for one that cannot be placed in
/// this way, and why a link, a reflink or a bind cannot be had.
pub fn placement(jail: Owner, near: &HostPath, placement: &Placement) -> Result<Step> {
    let source = HostPath::existing(&placement.source)?;
    let path = placement.target_of(&source)?;
    let facts = rustix::fs::stat(source.as_path()).context(Operation::Inspect, &source)?;
    let read_only = placement.read_only;
    let owner = owner(jail, placement)?;
    let decision = Decision { source: &source, near, facts: &facts, jail, owner, read_only };
    let kind = FileType::from_raw_mode(facts.st_mode);
    let device = matches!(kind, FileType::BlockDevice | FileType::CharacterDevice);
    match placement.how {
        How::Auto | How::Node if device => Ok(DeviceNode {
            path,
            block: kind == FileType::BlockDevice,
            major: rustix::fs::major(facts.st_rdev),
            minor: rustix::fs::minor(facts.st_rdev),
            owner,
            optional: false,
            read_only,
        }
        .into()),
        How::Bind if kind.is_file() || kind.is_dir() => {
            decision.demand_bind(placement.owner)?;
            Ok(Bind { source, inode: Inode::of(&facts), path, read_only }.into())
        }
        How::Auto | How::Copy if kind.is_dir() => Ok(PlacedTree { source, path, owner, read_only }.into()),
        How::Auto | How::Link | How::Copy | How::Reflink if kind.is_file() => {
            let how = decision.file(placement.how)?;
            Ok(PlacedFile { source, path, owner, how, expect_plain: false, read_only }.into())
        }
        How::Auto => Err(SpecError::NotAFile(source.as_path().to_owned()).into()),
        how => Err(PlacementError::NoSuchWay(source.as_path().to_owned(), how).into()),
    }
}

/// Who owns what is placed. What the jail may only read is root's: its owner could change its mode.
fn owner(jail: Owner, placement: &Placement) -> Result<Owner> {
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

/// What a decision is made of.
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
            How::Link => self.demand_link().map(|()| FileHow::Link),
            How::Reflink => {
                self.try_reflink().map_err(|cause| PlacementError::Reflink(self.path(), cause))?;
                Ok(FileHow::Reflink)
            }
            How::Auto if self.try_reflink().is_ok() => Ok(FileHow::Reflink),
            How::Auto if self.owner_fits() && self.same_mount()? && !self.powers().forbid_link() => {
                Ok(FileHow::Link)
            }
            _ => Ok(FileHow::Copy),
        }
    }

    fn demand_link(&self) -> Result<()> {
        if !self.owner_fits() {
            let refused =
                if self.read_only { PlacementError::LinkReadOnly } else { PlacementError::LinkOwner };
            let who = if self.read_only { self.jail } else { self.owner };
            return Err(refused(self.path(), who).into());
        }
        if !self.same_mount()? {
            return Err(PlacementError::LinkElsewhere(self.path()).into());
        }
        let powers = self.powers();
        if powers.forbid_link() {
            return Err(PlacementError::LinkPrivileges(self.path(), powers).into());
        }
        Ok(())
    }

    /// What a link would keep. The file that is linked is asked once more when it is open.
    fn powers(&self) -> FilePrivileges {
        FilePrivileges::at(self.source.as_path(), self.facts.st_mode)
    }

    /// Whether the file can be in the jail as it is: its owner and mode are not the jail's to change.
    fn owner_fits(&self) -> bool {
        let (uid, gid, mode) = (self.facts.st_uid, self.facts.st_gid, self.facts.st_mode);
        if !self.read_only {
            return (uid, gid) == (self.owner.uid, self.owner.gid);
        }
        // With an access control list the group's bits are the most that anybody named in it gets.
        let read = if gid == self.jail.gid { 0o040 } else { 0o004 };
        uid != self.jail.uid && mode & 0o022 == 0 && mode & read != 0
    }

    /// Whether source and jail are on one mount, as a hard link needs.
    fn same_mount(&self) -> Result<bool> {
        let mount = |path: &HostPath| {
            let facts = statx(CWD, path.as_path(), AtFlags::empty(), StatxFlags::MNT_ID);
            facts.map(|facts| facts.stx_mnt_id).context(Operation::Inspect, path)
        };
        Ok(mount(self.source)? == mount(self.near)?)
    }

    /// Whether the filesystem shares blocks, by trying it on a file without a name.
    fn try_reflink(&self) -> std::result::Result<(), Errno> {
        let open = |path: &HostPath, flags| {
            rustix::fs::open(path.as_path(), flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
        };
        let source = open(self.source, OFlags::RDONLY)?;
        let trial = open(self.near, OFlags::TMPFILE | OFlags::RDWR)?;
        rustix::fs::ioctl_ficlone(trial.as_fd(), source.as_fd())
    }

    /// Refuses a bind that would have to change the host's file, or that the jail is in.
    fn demand_bind(&self, owner: Option<Owner>) -> Result<()> {
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

/// The way that a step of a placement is.
pub(crate) fn method_of(step: &Step) -> How {
    match step {
        Step::PlacedFile(PlacedFile { how: FileHow::Link, .. }) => How::Link,
        Step::PlacedFile(PlacedFile { how: FileHow::Reflink, .. }) => How::Reflink,
        Step::DeviceNode(_) => How::Node,
        Step::Bind(_) => How::Bind,
        _ => How::Copy,
    }
}
