//! Which files of the host a jail shares: a hard link that gets the jail's owner.
//!
//! The owner of a file belongs to all its names. So sharing is only for files that were created for the jail, and what is
//! checked, linked and changed is one open file.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use stockade_syscalls::descriptors::fd_path;

use crate::error::{Context, Operation, PlacementError, Result};
use crate::plan::links::expect_links;
use crate::spec::{FilePrivileges, JailPath, Layout, Owner, SpecError};
use crate::steps::StepContext;
use crate::sys::file_id::FileId;
use crate::sys::obstacle::Obstacle;
use crate::sys::open::{INSIDE, open_directory};

/// Which files of the host [`Adopted::share`](crate::Adopted::share) may give to the jail's owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// None. A socket or named pipe must belong to the jail's owner already.
    Never,
    /// Those that were created for the jail: regular files, sockets and named pipes in the jail's own directory, and
    /// sockets and named pipes of the caller or the jail's owner elsewhere. None with a hard link elsewhere.
    #[default]
    OwnDirectory,
    /// Every regular file, socket and named pipe.
    Always,
}

/// A file to be shared.
pub(crate) struct Shared {
    /// The open file (`O_PATH`).
    pub(crate) file: OwnedFd,
    /// Whether its owner has to change.
    pub(crate) needs_owner: bool,
    /// Whether it is a socket or named pipe, for which there is no other method.
    pub(crate) only_linked: bool,
}

/// Where a path of the host leads.
enum Source {
    /// To a file in the jail's root, where the jail's uid may replace everything. The path is relative to the root.
    Root(OwnedFd, JailPath),
    /// To a file beside the root, in the jail's directory, in which only root can write.
    Beside(OwnedFd),
    /// Elsewhere.
    Elsewhere,
}

impl Source {
    /// Finds the jail's directory on the way to `path`. Behind it no symbolic link is followed and no mount is entered.
    fn find(layout: &Layout, path: &Path) -> Result<Self> {
        let not_found = |cause| SpecError::NotFound(path.to_owned(), cause);
        let absolute = std::path::absolute(path).map_err(|_| not_found(Errno::INVAL))?;
        let own = match FileId::at(layout.jail_dir().as_path()) {
            Ok(own) => own,
            Err(Errno::NOENT) => return Ok(Self::Elsewhere),
            Err(cause) => return Err(cause).context(Operation::Inspect, layout.jail_dir()),
        };
        // From the root of the host: behind the jail's root a symbolic link may lead anywhere.
        let mut above: Vec<&Path> = absolute.ancestors().skip(1).collect();
        above.reverse();
        let Some(directory) = above.into_iter().find(|above| FileId::at(*above) == Ok(own)) else {
            return Ok(Self::Elsewhere);
        };
        let below = absolute.strip_prefix(directory).unwrap_or(&absolute);
        let opened = open_directory(CWD, layout.jail_dir().as_path(), ResolveFlags::NO_MAGICLINKS);
        let opened = opened.context(Operation::Open, layout.jail_dir())?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |resolve| rustix::fs::openat2(&opened, below, flags, Mode::empty(), resolve);
        let Ok(in_root) = below.strip_prefix(Layout::ROOT) else {
            if layout.has_lone_root() {
                // Beside that root are the directories of other jails.
                return Ok(Self::Elsewhere);
            }
            return Ok(open(INSIDE | ResolveFlags::NO_XDEV).map_or(Self::Elsewhere, Self::Beside));
        };
        match open(INSIDE) {
            Ok(file) if is_symlink(&file) => Err(PlacementError::SymlinkInJail(path.to_owned()).into()),
            Ok(file) => Ok(Self::Root(file, JailPath::new(in_root)?)),
            Err(Errno::LOOP | Errno::XDEV) => Err(PlacementError::SymlinkInJail(path.to_owned()).into()),
            Err(cause) => Err(not_found(cause).into()),
        }
    }
}

fn is_symlink(file: &OwnedFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|facts| FileType::from_raw_mode(facts.st_mode) == FileType::Symlink)
}

/// The path in the root of a source that lies there: the jail's uid may replace everything on the way.
///
/// # Errors
/// * [`PlacementError::SymlinkInJail`] if it is a symbolic link, or below one
/// * [`SpecError::NotFound`] if it does not exist
pub(crate) fn path_in_root(layout: &Layout, source: &Path) -> Result<Option<JailPath>> {
    match Source::find(layout, source)? {
        Source::Root(_, path) => Ok(Some(path)),
        Source::Beside(_) | Source::Elsewhere => Ok(None),
    }
}

/// Decides whether a file is shared; `None` for a file that has to be placed by another method.
///
/// # Arguments
/// * `source`: a path of the host
/// * `path`: the path in the jail
/// * `owner`: the owner to be
///
/// # Errors
/// * [`SpecError::NotFound`] if the source does not exist
/// * [`PlacementError::SymlinkInJail`] or [`PlacementError::ForeignLink`] if the jail's uid may have redirected the path
/// * [`PlacementError::NotShared`] if a socket or named pipe may not get this owner
pub(crate) fn decide_sharing(
    ctx: &StepContext,
    source: &Path,
    path: &JailPath,
    owner: Owner,
    sharing: Sharing,
) -> Result<Option<Shared>> {
    let (file, is_own, in_root) = match Source::find(&ctx.layout, source)? {
        Source::Root(file, below) => (file, true, Some(below)),
        Source::Beside(file) => (file, true, None),
        Source::Elsewhere => {
            // Without O_PATH, opening a named pipe would wait for its other end.
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let magic = ResolveFlags::NO_MAGICLINKS;
            let opened = rustix::fs::openat2(CWD, source, flags, Mode::empty(), magic);
            (opened.map_err(|cause| SpecError::NotFound(source.to_owned(), cause))?, false, None)
        }
    };
    let facts = rustix::fs::fstat(&file).context(Operation::Inspect, source.display().to_string())?;
    let only_linked = match FileType::from_raw_mode(facts.st_mode) {
        FileType::RegularFile => false,
        FileType::Socket | FileType::Fifo => true,
        _ => return Ok(None),
    };
    let needs_owner = (facts.st_uid, facts.st_gid) != (owner.uid, owner.gid);
    let is_allowed = match sharing {
        Sharing::Never => false,
        Sharing::Always => true,
        Sharing::OwnDirectory if !needs_owner => is_own,
        Sharing::OwnDirectory => {
            let is_callers = [rustix::process::geteuid().as_raw(), owner.uid].contains(&facts.st_uid);
            // The jail's uid can move a name in its root to `path`.
            let is_placed = in_root.is_none() && is_at(ctx, &facts, path)?;
            // Any other name may be a file that others use.
            (is_own || only_linked && is_callers) && facts.st_nlink <= 1 + u64::from(is_placed)
        }
    };
    // A copy goes through any symbolic link.
    if !is_own && (is_allowed || only_linked && !needs_owner) {
        expect_links(source, |uid| uid == 0)?;
    }
    if only_linked {
        return if is_allowed || !needs_owner {
            Ok(Some(Shared { file, needs_owner, only_linked }))
        } else {
            Err(PlacementError::NotShared(source.to_owned(), owner).into())
        };
    }
    // The jail would get a privileged file, or the change of the owner would remove the privileges.
    let is_plain = || !FilePrivileges::at(Path::new(&fd_path(&file)), facts.st_mode).forbid_link();
    let is_linkable = is_allowed && is_plain() && Obstacle::of(file.as_fd()).is_none();
    Ok(is_linkable.then_some(Shared { file, needs_owner, only_linked }))
}

/// Whether this very file is at `path` in the jail.
fn is_at(ctx: &StepContext, facts: &Stat, path: &JailPath) -> Result<bool> {
    Ok(ctx.tree()?.look(path)?.is_some_and(|placed| FileId::of(placed) == Ok(FileId::from(facts))))
}
