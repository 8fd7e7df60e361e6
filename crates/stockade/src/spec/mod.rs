//! The specification of a jail, in types that are checked while they are parsed.
//!
//! Every error about a user's input comes from here. A value of one of these types needs no second check.

mod account;
mod builder;
mod cgroup;
pub(crate) mod clock;
mod error;
mod exec_file;
mod exit_status;
pub(crate) mod file_privileges;
mod id;
mod jailer_arguments;
pub(crate) mod known;
mod layout;
pub mod libraries;
mod limit;
mod netns;
mod nonce;
mod paths;
mod placement;
mod profile;
mod profiles;
mod size;

use std::ffi::OsString;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use account::Account;
pub use builder::JailBuilder;
pub use cgroup::{CgroupSetting, CgroupVersion, ParentCgroup};
use clock::monotonic_us;
pub(crate) use error::{Reason, errno};
pub use error::{SpecError, cannot, not_expanded, reason};
pub use exec_file::ExecFile;
pub(crate) use exit_status::ExitRecord;
pub use exit_status::ExitStatus;
pub use file_privileges::{FilePrivilege, FilePrivileges, Stripped};
pub use id::JailId;
pub use known::Known;
pub use layout::Layout;
pub use limit::{Limits, ResourceLimit};
pub use netns::{NETNS_DIRECTORY, Netns, NetnsName};
pub use nonce::Nonce;
pub use paths::{HostPath, JailPath};
pub use placement::{How, Placed, Placement};
pub use profile::{ApiSocket, Profile, ProfileArgument, ProfileFile};
pub use profiles::{DEFAULT_PROFILE_DIRECTORY, Profiles};
pub use size::parse_size;

use crate::spec::libraries::Libraries;

/// The default base.
pub const DEFAULT_BASE: &str = "/srv/jailer";

/// The default owner.
pub const DEFAULT_OWNER: Owner = Owner { uid: 1234, gid: 1234 };

/// The owner of a jail's files, as which its VMM runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The user ID.
    pub uid: u32,
    /// The group ID.
    pub gid: u32,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

impl Owner {
    /// Parses a uid or gid: any number but 2³²−1, which leaves an ID unchanged in `setresuid` and `chown`.
    pub fn parse_number(text: &str) -> Option<u32> {
        text.parse().ok().filter(|number| *number != u32::MAX)
    }
}

/// The specification of a jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
// One for each switch.
#[allow(clippy::struct_excessive_bools)]
pub struct JailSpec {
    /// The jail's name.
    pub id: JailId,
    /// The VMM's executable.
    pub exec_file: ExecFile,
    /// The dynamic loader and the shared libraries to place with the executable ([`Libraries::of`]); empty by default.
    #[serde(default, rename = "closure")]
    pub libraries: Libraries,
    /// Whether the executable and its shared libraries are bound read-only instead of copied.
    ///
    /// Binds copy nothing, and all jails share the files' memory. The VMM's user needs the permission to execute the
    /// host's file.
    #[serde(default)]
    pub bind_executable: bool,
    /// The owner of the jail's files, as which the VMM runs.
    pub owner: Owner,
    /// The directory in which the jail is created.
    pub base: HostPath,
    /// Whether the jail is created even if its uid can write to the base, to the executable's directory in it, or to a
    /// directory above.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_unsafe_base: bool,
    /// The VMM's network namespace.
    pub netns: Netns,
    /// Whether the VMM's standard streams are `/dev/null`.
    pub daemonize: bool,
    /// Whether the VMM is the first process of its own pid namespace.
    pub new_pid_ns: bool,
    /// The cgroup settings.
    pub cgroups: Vec<CgroupSetting>,
    /// The cgroup version; with `None` the version that has the controllers.
    pub cgroup_version: Option<CgroupVersion>,
    /// The parent cgroup; with `None` it is named after the executable.
    pub parent_cgroup: Option<ParentCgroup>,
    /// The resource limits of the VMM's process.
    pub limits: Limits,
    /// The size of a ramfs on `/ramfs`, in bytes. The kernel's ramfs records the size but does not enforce it.
    pub ramfs: Option<u64>,
    /// The VMM's profile, which adds arguments and files.
    pub profile: Profile,
    /// The time of the request to start, by CLOCK_MONOTONIC in microseconds. Firecracker reports the time since then.
    pub started_us: u64,
    /// The VMM's arguments, without those of the profile.
    pub arguments: Vec<OsString>,
}

impl JailSpec {
    /// A specification with defaults for everything but its arguments.
    ///
    /// The defaults are uid and gid 1234, the host's network, no cgroup settings, 2048 open files, no shared libraries,
    /// and the built-in profile for the executable's name.
    pub fn new(id: JailId, exec_file: ExecFile, base: HostPath) -> Self {
        let profile = Profile::built_in().into_iter().find(|profile| profile.is_for(exec_file.name()));
        Self {
            id,
            exec_file,
            libraries: Libraries::default(),
            bind_executable: false,
            owner: DEFAULT_OWNER,
            base,
            allow_unsafe_base: false,
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

    /// The placements of a created jail: the binds of the executable and its libraries, and the profile's files.
    pub fn placements(&self) -> impl Iterator<Item = Placement> {
        let program = std::iter::once((self.exec_file.path(), self.exec_file.in_jail()));
        let libraries = self.libraries.files.iter().map(|file| (&file.source, file.path.clone()));
        let bind = |(source, path): (&HostPath, JailPath)| {
            Placement::new(source.as_path()).named(path.absolute()).how(How::Bind).read_only()
        };
        let bound = program.chain(libraries).filter(|_| self.bind_executable).map(bind);
        bound.chain(self.profile.placements())
    }

    /// The parent cgroup, relative to the hierarchy's mount.
    pub(crate) fn parent_cgroup(&self) -> &Path {
        let default = || Path::new(self.exec_file.name());
        self.parent_cgroup.as_ref().map_or_else(default, ParentCgroup::as_path)
    }

    /// The VMM's API socket in the jail, if it is known.
    pub fn socket(&self) -> Option<JailPath> {
        self.profile.socket(&self.arguments)
    }
}
