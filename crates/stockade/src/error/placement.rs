//! Errors of placing and unplacing.

use std::path::PathBuf;

use rustix::io::Errno;

use crate::spec::{FilePrivileges, How, JailPath, Owner, Reason};

/// Why a file, directory or device cannot be placed as requested.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// A file that cannot be linked into the jail, since it would have to change its owner.
    #[error("'{}' does not belong to {owner}, and a hard link cannot change its owner; share it if it was created for this jail, or use another method", .0.display(), owner = .1)]
    LinkOwner(PathBuf, Owner),
    /// A file that cannot be linked into the jail read-only.
    #[error("'{}' cannot be a read-only hard link: {owner} has to be able to read it, and only its owner to write it; copy it instead", .0.display(), owner = .1)]
    LinkReadOnly(PathBuf, Owner),
    /// A file that cannot be linked into the jail, since that is on another mount.
    #[error("'{}' is not on the jail's filesystem, which a hard link needs; copy it instead", .0.display())]
    LinkElsewhere(PathBuf),
    /// A file that cannot be linked into the jail, since a hard link keeps its privileges.
    #[error("'{}' cannot be a hard link in the jail, which would keep its {privileges}; copy it instead", .0.display(), privileges = .1)]
    LinkPrivileges(PathBuf, FilePrivileges),
    /// A file whose blocks the jail cannot share.
    #[error("'{}' cannot be reflinked into the jail: {}; copy it instead", .0.display(), no_reflink(*.1))]
    Reflink(PathBuf, Errno),
    /// A file that cannot be linked into a directory of the jail, although that is on the same mount.
    #[error("'{}' cannot be a hard link there: the directory in the jail has another project quota, or is in another btrfs subvolume; copy it instead", .0.display())]
    LinkAcross(PathBuf),
    /// A file that cannot be linked into the jail, since it has the attribute `i` or `a`.
    #[error("'{}' {how}, and no hard link to it can be created; copy it instead", .0.display(), how = .1)]
    LinkUnchangeable(PathBuf, String),
    /// A path in the jail whose directory cannot be changed: the directory or file, what it is, and the command that
    /// changes that.
    #[error("'{path}' cannot be placed: '{}' {obstacle}; run '{fix}'", .at.display())]
    Obstructed {
        /// The path in the jail.
        path: JailPath,
        /// The directory or file that cannot be changed.
        at: PathBuf,
        /// Why it cannot be changed, as a predicate.
        obstacle: String,
        /// The command that makes it changeable.
        fix: String,
    },
    /// A source that the jail's uid cannot open, placed by a method that keeps its mode.
    #[error("{by} cannot open '{}', and a {how} does not change its owner or mode; change them, use another method, or share it if it was created for this jail", .path.display())]
    Unopenable {
        /// The file, directory, socket or named pipe.
        path: PathBuf,
        /// The owner of the jail.
        by: Owner,
        /// The method.
        how: &'static str,
    },
    /// A device, and the directory of the jail, on whose mount no device can be opened.
    #[error("'{}' cannot be opened in the jail, because '{}' is mounted nodev; use a base on another filesystem", .0.display(), .1.display())]
    NoDevices(PathBuf, PathBuf),
    /// A file to be shared that has other names, whose owner would change too, and the owner.
    #[error("'{}' has other hard links, which would belong to {owner} too; share a file of its own, or copy it", .0.display(), owner = .1)]
    ShareLinks(PathBuf, Owner),
    /// A file to be shared read-only.
    #[error("'{}' cannot be shared read-only, because the jail's uid would own it; bind it instead", .0.display())]
    ShareReadOnly(PathBuf),
    /// A source that cannot be placed by this method.
    #[error("'{}' cannot be placed by {how}; use `node` for devices, `bind`, `link` or `share` for sockets and named pipes, any but `node` for files, `bind` or `copy` for directories", .0.display(), how = .1)]
    UnsupportedMethod(PathBuf, How),
    /// A socket or named pipe that was not created for the jail, and the owner that it would get.
    #[error("'{}' was not created for this jail: it belongs to another user or has further hard links, and sharing it would give it to {owner}; create it for this jail, or share every file", .0.display(), owner = .1)]
    NotShared(PathBuf, Owner),
    /// A socket or named pipe that is on another mount than the jail.
    #[error("'{}' is a socket or a named pipe on another filesystem than the jail, and a hard link cannot share it; create it beside the jail's base", .0.display())]
    SharedElsewhere(PathBuf),
    /// A path through the jail's root that has a symbolic link, which the jail's uid may have created.
    #[error("'{}' leads through the jail's root by a symbolic link, which is not followed; use the path of its target", .0.display())]
    SymlinkInJail(PathBuf),
    /// A source that leads through a symbolic link of another user, who decides where it leads: the source and the link.
    #[error("'{}' leads through the symbolic link '{}', which is another user's and not followed; use the path of its target", .0.display(), .1.display())]
    ForeignLink(PathBuf, PathBuf),
    /// A bind with an owner.
    #[error("'{}' keeps its owner in a bind; omit the owner or copy it instead", .0.display())]
    BindOwner(PathBuf),
    /// A source that is no longer the planned file or directory.
    #[error("'{}' was replaced since it was placed; place it again", .0.display())]
    Exchanged(PathBuf),
    /// A file that the jail's uid exchanged for another one before it had its name.
    #[error("'{0}' was exchanged by the jail's uid while it was placed; place it again")]
    Swapped(JailPath),
    /// A path that was not placed.
    #[error("'{0}' was not placed into the jail")]
    NotPlaced(JailPath),
    /// A path below a bind.
    #[error(
        "'{0}' is below '{1}' in the jail, which is a bind; put the file into the bound directory itself"
    )]
    BelowBind(JailPath, JailPath),
    /// A path in the jail that is not free for a file.
    #[error("'{0}' in the jail is a directory, or part of the jail itself; use another name")]
    Taken(JailPath),
    /// A directory that cannot be placed, since something of that name is in the jail.
    #[error("'{0}' exists in the jail, and a directory is never placed over something; use another name")]
    TreeTaken(JailPath),
    /// Something in a directory that is neither file, directory nor symbolic link.
    #[error("'{}' is neither a file, a directory nor a symbolic link; remove it or place the files one by one", .0.display())]
    TreeSpecial(PathBuf),
    /// A symbolic link in a directory that leads out of it.
    #[error("'{}' is a symbolic link to '{}', which is not in the placed directory; replace it with the file", .0.display(), .1.display())]
    TreeLink(PathBuf, PathBuf),
    /// A directory that has the jail itself in it.
    #[error("'{}' has the jail itself in it; place another directory", .0.display())]
    TreeHoldsJail(PathBuf),
}

fn no_reflink(cause: Errno) -> String {
    match cause {
        Errno::XDEV => "it is on another filesystem".to_owned(),
        Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL => "its filesystem has no reflinks".to_owned(),
        other => Reason(other).to_string(),
    }
}
