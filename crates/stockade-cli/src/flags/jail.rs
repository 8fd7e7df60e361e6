//! The flags by which a jail is described, and the specification they ask for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use stockade::Placement;
use stockade::spec::{DEFAULT_BASE, DEFAULT_PROFILE_DIRECTORY, JailBuilder, JailSpec, Profiles};

use super::placement::{check_distinct, parse, placement_failure};
use super::size::size;
use super::state::StateArgs;
use crate::terminal::output::Failure;

/// What a command that makes jails is asked.
#[derive(Debug, Args)]
pub(crate) struct JailCommand<T: Args> {
    #[command(flatten)]
    pub(crate) jail: JailArgs,
    #[command(flatten)]
    pub(crate) state: StateArgs,
    /// What else this command can be asked.
    #[command(flatten)]
    pub(crate) own: T,
}

/// What a jail is to be: the flags of Firecracker's jailer, and some more.
#[derive(Debug, Args)]
// One for each flag that is on or off.
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct JailArgs {
    /// Name of the jail: 1 to 64 letters, digits and dashes.
    #[arg(long)]
    id: String,
    /// The VMM's executable, copied into the jail with its libraries.
    #[arg(long, value_name = "FILE")]
    exec_file: PathBuf,
    /// Leave out the loader and the libraries of a dynamic VMM.
    #[arg(long)]
    no_closure: bool,
    /// Bind the VMM and its libraries, read-only, and copy nothing.
    #[arg(long)]
    bind_exec: bool,
    /// User that the VMM runs as.
    #[arg(long, default_value = "1234")]
    uid: String,
    /// Group that the VMM runs as.
    #[arg(long, default_value = "1234")]
    gid: String,
    /// Directory that jails are made in.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BASE)]
    chroot_base_dir: PathBuf,
    /// Network namespace to make, or to join if it is there.
    #[arg(long, value_name = "NAME|PATH", conflicts_with = "new_net_ns")]
    netns: Option<String>,
    /// A network namespace without a name, which ends with the VMM.
    #[arg(long)]
    new_net_ns: bool,
    /// Make the VMM the first process of a pid namespace.
    #[arg(long)]
    new_pid_ns: bool,
    /// Return once the VMM runs, its standard streams on /dev/null.
    #[arg(long)]
    daemonize: bool,
    /// Cgroup setting, such as pids.max=64 (repeatable).
    #[arg(long, value_name = "FILE=VALUE")]
    cgroup: Vec<String>,
    /// 1 or 2; the one that has the controllers unless given.
    #[arg(long, value_name = "N")]
    cgroup_version: Option<String>,
    /// Where its cgroup is made; the executable's name unless given.
    #[arg(long, value_name = "PATH")]
    parent_cgroup: Option<String>,
    /// fsize=BYTES or no-file=COUNT (repeatable).
    #[arg(long, value_name = "NAME=N")]
    resource_limit: Vec<String>,
    /// A ramfs on /ramfs, which only a memory cgroup limits for good.
    #[arg(long, value_name = "SIZE")]
    ramfs: Option<String>,
    /// SRC[=NAME][:ro][:bind|copy|link|node|reflink] (repeatable).
    #[arg(long, value_name = "SRC...")]
    place: Vec<OsString>,
    /// What is known of the VMM; by its name unless given.
    #[arg(long, value_name = "NAME|FILE")]
    profile: Option<String>,
    /// Further profiles.
    #[arg(long, value_name = "DIR", env = "STOCKADE_PROFILE_DIR", hide_env_values = true)]
    #[arg(default_value = DEFAULT_PROFILE_DIRECTORY)]
    profile_dir: PathBuf,
    /// Arguments for the VMM.
    #[arg(last = true, value_name = "VMM ARGUMENTS", hide = true)]
    arguments: Vec<OsString>,
}

impl JailArgs {
    /// The specification, or what is wrong with which flag.
    pub(crate) fn spec(&self) -> Result<JailSpec, Failure> {
        let mut builder = JailSpec::builder(&self.id, &self.exec_file)
            .libraries(!self.no_closure)
            .bind_executable(self.bind_exec)
            .uid(&self.uid)
            .gid(&self.gid)
            .base(&self.chroot_base_dir)
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
            builder = builder.ramfs(size("ramfs", text)?);
        }
        if let Some(profile) = &self.profile {
            builder = builder.profile(profile);
        }
        Ok(builder.build()?)
    }

    /// What is to be placed, each to a place of its own.
    pub(crate) fn placements(&self) -> Result<Vec<Placement>, Failure> {
        let parsed = self.place.iter().map(|argument| {
            parse(argument, &|source: &Path| Placement::new(source))
                .map_err(|wrong| placement_failure(PLACE_FLAG, argument.as_ref(), &wrong))
        });
        let placements = parsed.collect::<Result<Vec<_>, _>>()?;
        check_distinct(&placements, PLACE_FLAG).map(|()| placements)
    }
}

/// The flag whose values are placements.
pub(crate) const PLACE_FLAG: Option<&str> = Some("place");
