//! Why a specification is refused.

use std::num::ParseIntError;
use std::path::PathBuf;

use rustix::io::Errno;

use super::Owner;
use crate::spec::libraries::LibraryError;

/// What is wrong with a specification, and with which part of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// One part is wrong, named as the command line names its flag.
    #[error("{name}: {cause}")]
    Argument {
        /// The flag, without its dashes.
        name: &'static str,
        /// What is wrong with its value.
        cause: Box<SpecError>,
    },
    /// The shared libraries that the executable needs cannot be found.
    #[error(transparent)]
    Libraries(#[from] LibraryError),
    /// An id of no or too many bytes.
    #[error("Invalid instance ID: Invalid len ({0});  the length must be between 1 and 64")]
    IdLength(usize),
    /// An id with a character that is no letter, digit or dash.
    #[error("Invalid instance ID: Invalid char ({0}) at position {1}")]
    IdCharacter(char, usize),
    /// A path that leads nowhere.
    #[error("Failed to canonicalize path {}: {cause}", .0.display(), cause = .1)]
    NotFound(PathBuf, Errno),
    /// An executable that is not a regular file.
    #[error("{} is not a file", .0.display())]
    NotAFile(PathBuf),
    /// An executable that the VMM's user may not execute as it is.
    #[error(
        "{} may not be executed by {owner}, and bound it stays as it is: have it copied, or chmod it",
        .0.display(), owner = .1
    )]
    NotForOwner(PathBuf, Owner),
    /// A base that is not a directory.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// A base so long that a jail's root in it would have a path that the kernel does not take.
    #[error(
        "the jail's root would have a path of {0} bytes, and no more than {1} can be: choose a shorter directory"
    )]
    RootTooLong(usize, usize),
    /// A path that cannot be written down.
    #[error("{} is not UTF-8, as a jail's receipt is", .0.display())]
    NotText(PathBuf),
    /// An executable whose name cannot name a directory and a cgroup.
    #[error("The name of {} is not UTF-8", .0.display())]
    ExecName(PathBuf),
    /// A uid that is no number.
    #[error("Invalid uid: {0}")]
    Uid(String),
    /// A gid that is no number.
    #[error("Invalid gid: {0}")]
    Gid(String),
    /// A parent cgroup that is absolute or has dots for components.
    #[error("Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'")]
    ParentCgroup,
    /// A cgroup version that is no number.
    #[error("{0} is an invalid cgroup version specifier")]
    CgroupVersion(String),
    /// A setting that is not `FILE=VALUE`.
    #[error("Invalid format for cgroups: {0}")]
    CgroupFormat(String),
    /// A setting whose file is not one of a cgroup.
    #[error("Cgroup invalid file: {0}")]
    CgroupFile(String),
    /// A setting whose file only the other version has.
    #[error(
        "{file} is a file of cgroup version {theirs}, and the jail's cgroup is of version {}: there it is {instead}",
        3 - .theirs
    )]
    OtherCgroupVersion {
        /// The file.
        file: String,
        /// Which version has it.
        theirs: u8,
        /// What does the same in the other.
        instead: &'static str,
    },
    /// A limit that is not `NAME=VALUE`.
    #[error("Invalid format for resources limits: {0}")]
    LimitFormat(String),
    /// A limit of an unknown kind.
    #[error("Invalid resource argument: {0}")]
    LimitName(String),
    /// A limit that is no number.
    #[error("Invalid limit value for resource: {0}: {1}")]
    LimitValue(String, ParseIntError),
    /// A network namespace's name that is not one plain component.
    #[error("Invalid network namespace name: {0:?}")]
    NetnsName(String),
    /// An argument of a profile in braces that stands for nothing.
    #[error(
        "{0} is no placeholder: there are {{id}}, {{start-time-us}}, {{cpu-time-us}} and {{parent-cpu-time-us}}"
    )]
    Placeholder(String),
    /// A profile that is neither built in nor in the directory of profiles.
    #[error("there is no profile {0}: there are {1}")]
    UnknownProfile(String, String),
    /// A profile's file that cannot be read or understood.
    #[error("profile {}: {problem}", .0.display(), problem = .1)]
    ProfileFile(PathBuf, String),
    /// A read-only placement whose owner could change that.
    #[error("{0} cannot own what is read-only: uid {uid} is the jail's own, and could make it writable", uid = .0.uid)]
    ReadOnlyOwner(Owner),
    /// A path that would leave the jail, or that names nothing.
    #[error("{:?} is not a path inside a jail", .0)]
    JailPath(PathBuf),
}

/// The number behind an error of the standard library; EINVAL where the library itself refused.
pub(crate) fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::INVAL)
}
