//! What a jail is to be: typed, and checked while it is parsed.
//!
//! Every error about a user's input comes from here. What has one of these types needs no second look.

mod builder;
mod cgroup;
mod cgroup_files;
pub(crate) mod clock;
mod error;
mod exec_file;
mod exit_status;
mod id;
mod jailer_arguments;
mod layout;
pub mod libraries;
mod limit;
mod netns;
mod nonce;
mod paths;
mod placement;
pub(crate) mod powers;
mod profile;
mod profiles;

use std::ffi::OsString;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use builder::JailBuilder;
pub use cgroup::{CgroupSetting, CgroupVersion, ParentCgroup};
use clock::monotonic_us;
pub use error::SpecError;
pub(crate) use error::errno;
pub use exec_file::ExecFile;
pub use exit_status::ExitStatus;
pub use id::JailId;
pub use layout::Layout;
pub use limit::{Limits, ResourceLimit};
pub use netns::{NETNS_DIRECTORY, Netns, NetnsName};
pub use nonce::Nonce;
pub use paths::{HostPath, JailPath};
pub use placement::{How, Placed, Placement};
pub use powers::{FilePrivilege, FilePrivileges, Stripped};
pub use profile::{ApiSocket, Profile, ProfileArgument, ProfileFile};
pub use profiles::{DEFAULT_PROFILE_DIRECTORY, Profiles};

use crate::spec::libraries::Libraries;

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
    /// What the VMM's loader needs in the jail; nothing unless it is asked for ([`Libraries::of`]).
    #[serde(default)]
    pub closure: Libraries,
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
            closure: Libraries::default(),
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

    /// The cgroup in which the jail's own is made, relative to the hierarchy: by default the executable's name.
    pub(crate) fn parent_cgroup(&self) -> &Path {
        let default = || Path::new(self.exec_file.name());
        self.parent_cgroup.as_ref().map_or_else(default, ParentCgroup::as_path)
    }

    /// The Unix socket in the jail at which the VMM can be talked to, if that is known.
    pub fn socket(&self) -> Option<JailPath> {
        self.profile.socket(&self.arguments)
    }
}
