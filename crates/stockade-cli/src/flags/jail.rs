//! The flags that describe a jail, and the specification they request.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use stockade::spec::{DEFAULT_BASE, DEFAULT_PROFILE_DIRECTORY, JailBuilder, JailSpec, Profiles, parse_size};
use stockade::{Error, How, Placement};

use super::placement::{check_distinct, parse, placement_failure};
use super::state::StateArgs;
use crate::terminal::output::{Failure, in_flag};

/// Arguments of a command that creates or plans jails.
#[derive(Debug, Args)]
pub(crate) struct JailCommand<T: Args> {
    #[command(flatten)]
    pub(crate) jail: JailArgs,
    #[command(flatten)]
    pub(crate) state: StateArgs,
    /// The command's own flags.
    #[command(flatten)]
    pub(crate) own: T,
}

/// Description of a jail: the flags of Firecracker's jailer, and stockade's own.
#[derive(Debug, Args)]
// One for each flag that is on or off.
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct JailArgs {
    /// Jail ID: 1 to 64 letters, digits and '-'.
    #[arg(long)]
    id: String,
    /// VMM executable, copied into the jail with its shared libraries.
    #[arg(long, value_name = "FILE")]
    exec_file: PathBuf,
    /// Omit the VMM's dynamic loader and shared libraries.
    #[arg(long)]
    no_closure: bool,
    /// Bind the VMM and its libraries read-only instead of copying them.
    #[arg(long)]
    bind_exec: bool,
    /// User ID of the VMM, or a name in /etc/passwd.
    #[arg(long, value_name = "USER", default_value = "1234")]
    uid: String,
    /// Group ID of the VMM, or a name in /etc/group.
    #[arg(long, value_name = "GROUP", default_value = "1234")]
    gid: String,
    /// Directory that holds the jails.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BASE)]
    chroot_base_dir: PathBuf,
    /// Use the directory even if the VMM's user can write to it.
    // The refusal names it, and help is one screen.
    #[arg(long, hide = true)]
    allow_unsafe_base: bool,
    /// Network namespace: a name to create or join, or a path to join.
    #[arg(long, value_name = "NAME|PATH", conflicts_with = "new_net_ns")]
    netns: Option<String>,
    /// Create an unnamed network namespace, which ends with the VMM.
    #[arg(long)]
    new_net_ns: bool,
    /// Make the VMM the first process of a new PID namespace.
    #[arg(long)]
    new_pid_ns: bool,
    /// Return when the VMM runs, with its standard streams on /dev/null.
    #[arg(long)]
    daemonize: bool,
    /// Cgroup setting, such as pids.max=64 or memory.max=512M (repeatable).
    #[arg(long, value_name = "FILE=VALUE")]
    cgroup: Vec<String>,
    /// Cgroup version: 1 or 2 (default: the one that has the controllers).
    #[arg(long, value_name = "N")]
    cgroup_version: Option<String>,
    /// Parent of the jail's cgroup (default: the executable's name).
    #[arg(long, value_name = "PATH")]
    parent_cgroup: Option<String>,
    /// Resource limit: fsize=SIZE or no-file=COUNT (repeatable).
    #[arg(long, value_name = "NAME=N")]
    resource_limit: Vec<String>,
    /// Mount a ramfs on /ramfs; only a memory cgroup enforces its size.
    #[arg(long, value_name = "SIZE")]
    ramfs: Option<String>,
    /// Place SRC[=NAME][:ro][:METHOD]; methods as in `place` (repeatable).
    #[arg(long, value_name = "SRC...")]
    place: Vec<OsString>,
    /// Share SRC[=NAME], such as a log, by a hard link (repeatable).
    #[arg(long, value_name = "SRC...")]
    share: Vec<OsString>,
    /// VMM profile (default: by executable name).
    #[arg(long, value_name = "NAME|FILE")]
    profile: Option<String>,
    /// Directory of more profiles.
    #[arg(long, value_name = "DIR", env = "STOCKADE_PROFILE_DIR", hide_env = true)]
    #[arg(default_value = DEFAULT_PROFILE_DIRECTORY)]
    profile_dir: PathBuf,
    /// Arguments for the VMM.
    #[arg(last = true, value_name = "VMM ARGUMENTS", hide = true)]
    arguments: Vec<OsString>,
}

impl JailArgs {
    /// Builds the specification. An error names the flag.
    pub(crate) fn spec(&self) -> Result<JailSpec, Failure> {
        let mut builder = JailSpec::builder(&self.id, &self.exec_file)
            .libraries(!self.no_closure)
            .bind_executable(self.bind_exec)
            .uid(&self.uid)
            .gid(&self.gid)
            .base(&self.chroot_base_dir)
            .allow_unsafe_base(self.allow_unsafe_base)
            .new_pid_ns(self.new_pid_ns)
            .daemonize(self.daemonize)
            .profiles(Profiles::new(&self.profile_dir))
            .arguments(&self.arguments);
        if let Some(netns) = &self.netns {
            builder = builder.netns(netns);
        } else if self.new_net_ns {
            builder = builder.new_netns();
        }
        builder = self.cgroup.iter().fold(builder, JailBuilder::cgroup);
        builder = self.resource_limit.iter().fold(builder, JailBuilder::resource_limit);
        if let Some(version) = &self.cgroup_version {
            builder = builder.cgroup_version(version);
        }
        if let Some(parent) = &self.parent_cgroup {
            builder = builder.parent_cgroup(parent);
        }
        if let Some(text) = &self.ramfs {
            builder = builder.ramfs(ramfs_size(text)?);
        }
        if let Some(profile) = &self.profile {
            builder = builder.profile(profile);
        }
        // The conversion of `Error` names the flag.
        Ok(builder.build().map_err(Error::from)?)
    }

    /// Parses the values of `--place` and `--share`, and refuses two with one target.
    pub(crate) fn placements(&self) -> Result<Vec<Placement>, Failure> {
        let placed = self.place.iter().map(|argument| {
            parse(argument, &|source: &Path| Placement::new(source))
                .map_err(|cause| placement_failure(PLACE_FLAG, argument.as_ref(), &cause))
        });
        let shared = self.share.iter().map(|argument| {
            let placement = parse(argument, &|source: &Path| Placement::new(source).how(How::Share));
            let only_shared = |placement: Placement| match placement.method() {
                How::Share => Ok(placement),
                how => Err(format!("a shared file is a hard link; use --place for '{how}'")),
            };
            placement
                .and_then(only_shared)
                .map_err(|cause| placement_failure(SHARE_FLAG, argument.as_ref(), &cause))
        });
        let placements = placed.chain(shared).collect::<Result<Vec<_>, _>>()?;
        check_distinct(&placements, flag_of).map(|()| placements)
    }
}

/// The kernel mounts no ramfs of size 0.
fn ramfs_size(text: &str) -> Result<u64, Failure> {
    match parse_size(text).map_err(in_flag("ramfs"))? {
        0 => Err(Failure::flag("ramfs", "a ramfs cannot have size 0; use at least 1, or remove the flag")),
        bytes => Ok(bytes),
    }
}

/// The flag whose values are placements.
pub(crate) const PLACE_FLAG: Option<&str> = Some("place");
/// The flag whose values are shared files.
const SHARE_FLAG: Option<&str> = Some("share");

/// The flag of a placement.
pub(crate) fn flag_of(placement: &Placement) -> Option<&'static str> {
    if placement.method() == How::Share { SHARE_FLAG } else { PLACE_FLAG }
}
