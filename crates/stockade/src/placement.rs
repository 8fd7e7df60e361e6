//! What is to be placed into a jail, and the decision how.

use std::fmt;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, StatxFlags, statx};
use rustix::io::Errno;
use serde::Serialize;

use crate::error::{Context, Operation, Result};
use crate::spec::{HostPath, JailPath, Owner, SpecError};
use crate::step::{Bind, DeviceNode, FileHow, Inode, PlacedFile, PlacedTree, Step};

/// How something is to be placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum How {
    /// A device as a node; a file as a reflink where the filesystem has them, as a link where that needs no
    /// change of owner or mode, and otherwise as a copy; a directory as a copy.
    #[default]
    Auto,
    /// A further name of the same file.
    Link,
    /// A copy; of a directory, with everything in it.
    Copy,
    /// A copy of a file that shares the source's blocks until one of the two is written to.
    Reflink,
    /// The host's own file or directory, attached in the jail alone.
    Bind,
    /// A device node.
    Node,
}

impl How {
    /// Every way that can be asked for by name.
    pub const NAMED: [Self; 5] = [Self::Link, Self::Copy, Self::Reflink, Self::Bind, Self::Node];
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::Link => "link",
            Self::Copy => "copy",
            Self::Reflink => "reflink",
            Self::Bind => "bind",
            Self::Node => "node",
        })
    }
}

impl Serialize for How {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A file, directory or device of the host that is to be placed into a jail.
///
/// ```
/// use stockade::{How, Placement};
///
/// let root_image = Placement::new("/images/root.img").named("drives/root.img").how(How::Bind).read_only();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    source: PathBuf,
    name: Option<PathBuf>,
    how: How,
    read_only: bool,
    owner: Option<Owner>,
}

impl Placement {
    /// This file, under its own name in the jail's root, for the jail's owner to read and write.
    pub fn new(source: impl Into<PathBuf>) -> Self {
        Self { source: source.into(), name: None, how: How::Auto, read_only: false, owner: None }
    }

    /// Under this path in the jail; folders on the way are made.
    #[must_use]
    pub fn named(self, path: impl Into<PathBuf>) -> Self {
        Self { name: Some(path.into()), ..self }
    }

    /// In this way and no other.
    #[must_use]
    pub fn how(self, how: How) -> Self {
        Self { how, ..self }
    }

    /// For the jail to read only: it can neither write it nor change who may. What is in a folder of the
    /// jail's own it can still unlink.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    /// Owned by somebody else than the jail's owner.
    #[must_use]
    pub fn owner(self, owner: Owner) -> Self {
        Self { owner: Some(owner), ..self }
    }

    /// Where it is on the host, as it was given.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// Where it goes in the jail.
    ///
    /// # Errors
    /// [`SpecError::NotFound`] for a missing source, [`SpecError::JailPath`] for a name that would leave the
    /// jail.
    pub fn target(&self) -> Result<JailPath> {
        self.target_of(&HostPath::existing(&self.source)?)
    }

    fn target_of(&self, source: &HostPath) -> Result<JailPath> {
        let own_name = || Path::new(source.as_path().file_name().unwrap_or_default());
        Ok(JailPath::new(self.name.as_deref().unwrap_or_else(own_name))?)
    }
}

impl From<&Path> for Placement {
    fn from(source: &Path) -> Self {
        Self::new(source)
    }
}

impl From<PathBuf> for Placement {
    fn from(source: PathBuf) -> Self {
        Self::new(source)
    }
}

impl From<&PathBuf> for Placement {
    fn from(source: &PathBuf) -> Self {
        Self::new(source)
    }
}

impl From<&str> for Placement {
    fn from(source: &str) -> Self {
        Self::new(source)
    }
}

/// What was placed: where, and how. Displayed it is the path as the jail sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Placed {
    /// Where the jail sees it.
    pub path: JailPath,
    /// The way that was taken, never [`How::Auto`].
    pub how: How,
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

/// The way that a step of a placement is.
pub(crate) fn way_of(step: &Step) -> How {
    match step {
        Step::PlacedFile(PlacedFile { how: FileHow::Link, .. }) => How::Link,
        Step::PlacedFile(PlacedFile { how: FileHow::Reflink, .. }) => How::Reflink,
        Step::DeviceNode(_) => How::Node,
        Step::Bind(_) => How::Bind,
        _ => How::Copy,
    }
}

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
        how => Err(SpecError::NoSuchWay(source.as_path().to_owned(), how).into()),
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
                self.try_reflink().map_err(|cause| SpecError::Reflink(self.path(), cause))?;
                Ok(FileHow::Reflink)
            }
            How::Auto if self.try_reflink().is_ok() => Ok(FileHow::Reflink),
            How::Auto if self.owner_fits() && self.same_mount()? => Ok(FileHow::Link),
            _ => Ok(FileHow::Copy),
        }
    }

    fn demand_link(&self) -> Result<()> {
        if !self.owner_fits() {
            let refused = if self.read_only { SpecError::LinkReadOnly } else { SpecError::LinkOwner };
            let who = if self.read_only { self.jail } else { self.owner };
            return Err(refused(self.path(), who).into());
        }
        if !self.same_mount()? {
            return Err(SpecError::LinkElsewhere(self.path()).into());
        }
        Ok(())
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
            return Err(SpecError::BindOwner(self.path()).into());
        }
        if self.near.as_path().starts_with(self.source) {
            return Err(SpecError::TreeHoldsJail(self.path()).into());
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.source.as_path().to_owned()
    }
}
