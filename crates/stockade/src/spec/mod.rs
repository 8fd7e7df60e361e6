//! What a jail is to be: typed, and checked while it is parsed.
//!
//! Every error about a user's input comes from here. What has one of these types needs no second look.

mod builder;
mod cgroup;
mod cgroup_files;
mod exec_file;
mod id;
mod jailer_arguments;
mod limit;
mod netns;
mod paths;
mod profile;
mod profiles;

use std::ffi::OsString;
use std::num::ParseIntError;
use std::path::PathBuf;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use builder::JailBuilder;
pub use cgroup::{CgroupSetting, CgroupVersion, ParentCgroup};
pub use exec_file::ExecFile;
pub use id::JailId;
pub use limit::{Limits, ResourceLimit};
pub use netns::{NETNS_DIRECTORY, Netns, NetnsName};
pub use paths::{HostPath, JailPath};
pub use profile::{ApiSocket, Profile, ProfileArgument, ProfileFile};
pub use profiles::{DEFAULT_PROFILE_DIRECTORY, Profiles};

use crate::closure::Closure;
use crate::placement::{How, Placement};
use crate::powers::Powers;

/// The directory that jails are made in unless another is given.
pub const DEFAULT_BASE: &str = "/srv/jailer";

/// The uid and gid of a jail unless others are given.
pub const DEFAULT_OWNER: Owner = Owner { uid: 1234, gid: 1234 };

/// Who a jail's files belong to and its VMM runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

impl Owner {
    /// A uid or gid: any number but the last, by which the kernel means "leave it as it is".
    pub fn parse_number(text: &str) -> Option<u32> {
        text.parse().ok().filter(|number| *number != u32::MAX)
    }
}

/// What a jail is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JailSpec {
    /// Its name.
    pub id: JailId,
    /// The VMM.
    pub exec_file: ExecFile,
    /// What the VMM's loader needs in the jail; nothing unless it is asked for ([`Closure::of`]).
    #[serde(default)]
    pub closure: Closure,
    /// Whether executable and closure are the host's own files, bound read-only, and not copies: nothing is copied,
    /// and all jails run from the same memory. The VMM's user has to be allowed to execute the host's file.
    #[serde(default)]
    pub bind_executable: bool,
    /// Who it runs as.
    pub owner: Owner,
    /// The directory it is made in.
    pub base: HostPath,
    /// Its network.
    pub netns: Netns,
    /// Whether the VMM is cut loose from the caller: standard streams on `/dev/null`.
    pub daemonize: bool,
    /// Whether the VMM is the first process of a pid namespace of its own.
    pub new_pid_ns: bool,
    /// What it may use of the host, by cgroup.
    pub cgroups: Vec<CgroupSetting>,
    /// Which cgroup interface; `None` takes the one that has the controllers.
    pub cgroup_version: Option<CgroupVersion>,
    /// The cgroup its own is made in; `None` is the name of the executable.
    pub parent_cgroup: Option<ParentCgroup>,
    /// What its process may use.
    pub limits: Limits,
    /// The size of a ramfs on `/ramfs`, in bytes. The kernel's ramfs takes note of it and enforces nothing.
    pub ramfs: Option<u64>,
    /// What is known of the VMM, and so gets it further arguments and files.
    pub profile: Profile,
    /// When the start was asked for, by CLOCK_MONOTONIC in microseconds; Firecracker reports from it.
    pub started_us: u64,
    /// The VMM's own arguments.
    pub arguments: Vec<OsString>,
}

impl JailSpec {
    /// A jail called `id` for `exec_file` below `base`, everything else at its default: uid and gid 1234,
    /// the host's network, no cgroup, 2048 descriptors, and the built-in profile for an executable of that name.
    pub fn new(id: JailId, exec_file: ExecFile, base: HostPath) -> Self {
        let profile = Profile::built_in().into_iter().find(|profile| profile.is_for(exec_file.name()));
        Self {
            id,
            exec_file,
            closure: Closure::default(),
            bind_executable: false,
            owner: DEFAULT_OWNER,
            base,
            netns: Netns::Host,
            daemonize: false,
            new_pid_ns: false,
            cgroups: Vec::new(),
            cgroup_version: None,
            parent_cgroup: None,
            limits: Limits::default(),
            ramfs: None,
            profile: profile.unwrap_or_else(Profile::plain),
            started_us: monotonic_us(),
            arguments: Vec::new(),
        }
    }

    /// What is placed into the jail once it stands: the program, if it is to be bound, and what the VMM's profile
    /// says.
    pub fn placements(&self) -> impl Iterator<Item = Placement> {
        let program = std::iter::once((self.exec_file.path(), self.exec_file.in_jail()));
        let closure = self.closure.files.iter().map(|file| (&file.source, file.path.clone()));
        let bind = |(source, path): (&HostPath, JailPath)| {
            Placement::new(source.as_path()).named(path.absolute()).how(How::Bind).read_only()
        };
        let bound = program.chain(closure).filter(|_| self.bind_executable).map(bind);
        bound.chain(self.profile.placements())
    }

    /// The Unix socket in the jail at which the VMM can be talked to, if that is known.
    pub fn socket(&self) -> Option<JailPath> {
        self.profile.socket(&self.arguments)
    }
}

pub(crate) fn monotonic_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1_000
}

/// What is wrong with a specification, and with which part of it.
///
/// The texts are those of the original jailer where it has one: callers match on them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
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
    /// No hierarchy of the version asked for.
    #[error("Hierarchy not found: {0}")]
    NoHierarchy(&'static str),
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
    /// A controller that this host does not offer.
    #[error("Controller {0} is unavailable")]
    NoController(String),
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
    LinkPowers(PathBuf, Powers),
    /// A file whose blocks the jail cannot share.
    #[error("{} cannot be reflinked into the jail: {}", .0.display(), no_reflink(*.1))]
    Reflink(PathBuf, Errno),
    /// Something that there is no such way to place.
    #[error("{} cannot be placed by {how}: a node is for devices, a link or reflink for files, a bind or copy for files and directories", .0.display(), how = .1)]
    NoSuchWay(PathBuf, How),
    /// A read-only placement whose owner could change that.
    #[error("{0} cannot own what is read-only: uid {uid} is the jail's own, and could make it writable", uid = .0.uid)]
    ReadOnlyOwner(Owner),
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
    /// A path that would leave the jail, or that names nothing.
    #[error("{:?} is not a path inside a jail", .0)]
    JailPath(PathBuf),
}

fn no_reflink(cause: Errno) -> String {
    match cause {
        Errno::XDEV => "it is on another filesystem".to_owned(),
        Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL => "its filesystem has no reflinks".to_owned(),
        other => other.to_string(),
    }
}
