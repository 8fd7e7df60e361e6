//! Why something cannot be placed into a jail, or taken out of it.

use std::path::PathBuf;

use rustix::io::Errno;

use crate::spec::{FilePrivileges, How, JailPath, Owner};

/// Why a file, directory or device cannot be placed as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// A file that cannot be linked into the jail, since it would have to change its owner.
    #[error("{} does not belong to {owner}, and a link cannot change that for the host's file: copy it", .0.display(), owner = .1)]
    LinkOwner(PathBuf, Owner),
    /// A file that cannot be linked into the jail read-only.
    #[error("{} cannot be a read-only link: {owner} has to be able to read it, and nobody but its owner to write it: copy it", .0.display(), owner = .1)]
    LinkReadOnly(PathBuf, Owner),
    /// A file that cannot be linked into the jail, since that is elsewhere.
    #[error("{} is not on the jail's filesystem, and a link would have to be: copy it", .0.display())]
    LinkElsewhere(PathBuf),
    /// A file that cannot be linked into the jail, since a link keeps the powers of the host's file.
    #[error("{} cannot be linked into the jail: a link would keep its {powers}: use :copy", .0.display(), powers = .1)]
    LinkPowers(PathBuf, FilePrivileges),
    /// A file whose blocks the jail cannot share.
    #[error("{} cannot be reflinked into the jail: {}", .0.display(), no_reflink(*.1))]
    Reflink(PathBuf, Errno),
    /// Something that there is no such way to place.
    #[error("{} cannot be placed by {how}: a node is for devices, a link or reflink for files, a bind or copy for files and directories", .0.display(), how = .1)]
    NoSuchWay(PathBuf, How),
    /// A bind with an owner.
    #[error("{} is bound as it is, and its owner stays: leave the owner out, or copy it", .0.display())]
    BindOwner(PathBuf),
    /// A source that is another file or directory by now.
    #[error("{} is not what it was when it was placed", .0.display())]
    Exchanged(PathBuf),
    /// A path that was not placed.
    #[error("{0} was not placed into the jail")]
    NotPlaced(JailPath),
    /// A place below a bind.
    #[error("{0} in the jail is below {1}, which is a bind: put the file into the bound directory itself")]
    BelowBind(JailPath, JailPath),
    /// A place in the jail that is not free for a file.
    #[error("{0} in the jail is a folder, or part of the jail itself")]
    Taken(JailPath),
    /// A directory that cannot be placed, since something of that name is in the jail.
    #[error("{0} is in the jail already, and a directory is placed only where nothing is")]
    TreeTaken(JailPath),
    /// Something in a directory that is neither file, directory nor link.
    #[error("{} is neither a file, a directory nor a link", .0.display())]
    TreeSpecial(PathBuf),
    /// A link in a directory that leads out of it.
    #[error("{} is a link to {}, which is not in the directory that is placed", .0.display(), .1.display())]
    TreeLink(PathBuf, PathBuf),
    /// A directory that has the jail itself in it.
    #[error("{} has the jail itself in it", .0.display())]
    TreeHoldsJail(PathBuf),
}

fn no_reflink(cause: Errno) -> String {
    match cause {
        Errno::XDEV => "it is on another filesystem".to_owned(),
        Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL => "its filesystem has no reflinks".to_owned(),
        other => other.to_string(),
    }
}
