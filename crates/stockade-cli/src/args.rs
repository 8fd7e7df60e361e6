//! The command line, and the specification it asks for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use stockade::closure::Closure;
use stockade::spec::{
    CgroupSetting, CgroupVersion, DEFAULT_BASE, ExecFile, HostPath, JailId, JailSpec, Netns, Owner,
    ParentCgroup, Profile, ResourceLimit, SpecError,
};
use stockade::{DEFAULT_STATE_DIRECTORY, Store};

use crate::output::Failure;

/// Makes, watches and tears down jails for microVM monitors, and leaves no trace.
#[derive(Debug, Parser)]
#[command(name = "stockade", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a VMM in a jail of its own, and remove the jail when it ends.
    Run(crate::run::RunArgs),
    /// Make a jail, and leave it to be filled and started.
    Create(crate::create::CreateArgs),
    /// Place files, directories or devices into a jail; print where the jail finds them.
    Place(crate::place::PlaceArgs),
    /// Start the VMM of a jail that was created, and return.
    Start(crate::start::StartArgs),
    /// Wait until VMMs have ended; print their exit codes.
    Wait(crate::jails::IdsArgs),
    /// Send VMMs a signal.
    Kill(crate::kill::KillArgs),
    /// Ask VMMs to end, and kill those that do not.
    Stop(crate::stop::StopArgs),
    /// Remove jails.
    Rm(crate::rm::RmArgs),
    /// Print what the VMM of a jail has written.
    Logs(crate::logs::LogsArgs),
    /// Print what `run` would do, and do nothing.
    Plan(crate::plan::PlanArgs),
    /// List the jails.
    Ps(crate::ps::PsArgs),
    /// Remove what dead jails left.
    Gc(crate::gc::GcArgs),
    /// Make a real jail, look around in it, run a tiny guest, and leave no trace.
    Demo(crate::demo::DemoArgs),
}

/// Where the receipts are.
#[derive(Debug, Args)]
pub(crate) struct StateArgs {
    /// Directory of the receipts.
    #[arg(long, value_name = "DIR", env = "STOCKADE_STATE_DIR", default_value = DEFAULT_STATE_DIRECTORY)]
    state_dir: PathBuf,
}

impl StateArgs {
    pub(crate) fn store(&self) -> Result<Store, Failure> {
        Store::new(&self.state_dir).map_err(in_flag("state-dir"))
    }
}

/// What a jail is to be: the flags of Firecracker's jailer, and some more.
#[derive(Debug, Args)]
// One for each flag that is on or off.
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct JailArgs {
    /// Name of the jail: 1 to 64 letters, digits and dashes.
    #[arg(long)]
    id: String,
    /// The VMM's executable; it is copied into the jail, with the libraries that it needs.
    #[arg(long, value_name = "FILE")]
    exec_file: PathBuf,
    /// Do not place the loader and the libraries that a dynamically linked VMM needs.
    #[arg(long)]
    no_closure: bool,
    /// User that the VMM runs as.
    #[arg(long, default_value = "1234")]
    uid: String,
    /// Group that the VMM runs as.
    #[arg(long, default_value = "1234")]
    gid: String,
    /// Directory that jails are made in.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BASE)]
    chroot_base_dir: PathBuf,
    /// Network namespace: a name, made and removed with the jail unless it exists; or the path of one to join.
    #[arg(long, value_name = "NAME|PATH", conflicts_with = "new_net_ns")]
    netns: Option<String>,
    /// Give the VMM a network namespace without a name, which ends with it.
    #[arg(long)]
    new_net_ns: bool,
    /// Make the VMM the first process of a pid namespace.
    #[arg(long)]
    new_pid_ns: bool,
    /// Cut the VMM loose: standard streams on /dev/null, and return once it runs.
    #[arg(long)]
    daemonize: bool,
    /// Cgroup setting, such as cpu.shares=512 (repeatable).
    #[arg(long, value_name = "FILE=VALUE")]
    cgroup: Vec<String>,
    /// Cgroup version, 1 or 2; the one that has the controllers unless given.
    #[arg(long, value_name = "N")]
    cgroup_version: Option<String>,
    /// Cgroup that the jail's own is made in; the executable's name unless given.
    #[arg(long, value_name = "PATH")]
    parent_cgroup: Option<String>,
    /// Resource limit: fsize=BYTES or no-file=COUNT (repeatable).
    #[arg(long, value_name = "NAME=N")]
    resource_limit: Vec<String>,
    /// Put a ramfs on /ramfs in the jail. Its size is nominal: only a memory cgroup limits it.
    #[arg(long, value_name = "SIZE")]
    ramfs: Option<String>,
    /// Place a file, directory or device into the jail (repeatable).
    #[arg(long, value_name = "SRC[=NAME]")]
    place: Vec<OsString>,
    /// Further arguments for the VMM: none (plain), or those of Firecracker's jailer.
    #[arg(long, value_name = "NAME", value_parser = ["plain", "firecracker"])]
    profile: Option<String>,
    /// Arguments for the VMM.
    #[arg(last = true, value_name = "VMM ARGUMENTS")]
    arguments: Vec<OsString>,
}

impl JailArgs {
    /// The specification, or what is wrong with which flag.
    pub(crate) fn spec(&self) -> Result<JailSpec, Failure> {
        let id: JailId = self.id.parse().map_err(in_flag("id"))?;
        let exec_file = ExecFile::new(&self.exec_file).map_err(in_flag("exec-file"))?;
        let base = HostPath::future_directory(&self.chroot_base_dir).map_err(in_flag("chroot-base-dir"))?;
        let mut spec = JailSpec::new(id, exec_file, base);
        if !self.no_closure {
            spec.closure = Closure::of(&spec.exec_file)
                .map_err(|error| Failure::new(format!("--exec-file: {error} (see --no-closure)")))?;
        }
        spec.owner = Owner {
            uid: Owner::parse_number(&self.uid)
                .ok_or_else(|| in_flag("uid")(SpecError::Uid(self.uid.clone())))?,
            gid: Owner::parse_number(&self.gid)
                .ok_or_else(|| in_flag("gid")(SpecError::Gid(self.gid.clone())))?,
        };
        spec.netns = match &self.netns {
            Some(argument) => Netns::from_argument(argument).map_err(in_flag("netns"))?,
            None if self.new_net_ns => Netns::New,
            None => Netns::Host,
        };
        spec.new_pid_ns = self.new_pid_ns;
        spec.daemonize = self.daemonize;
        spec.cgroups = parse_all::<CgroupSetting>(&self.cgroup, "cgroup")?;
        spec.cgroup_version = self.cgroup_version.as_deref().map(cgroup_version).transpose()?;
        let parent = self.parent_cgroup.as_deref().map(str::parse::<ParentCgroup>);
        spec.parent_cgroup = parent.transpose().map_err(in_flag("parent-cgroup"))?;
        spec.limits.extend(parse_all::<ResourceLimit>(&self.resource_limit, "resource-limit")?);
        spec.ramfs = self.ramfs.as_deref().map(|text| size("ramfs", text)).transpose()?;
        match self.profile.as_deref() {
            Some("plain") => spec.profile = Profile::Plain,
            Some(_) => spec.profile = Profile::Firecracker,
            None => (),
        }
        spec.arguments.clone_from(&self.arguments);
        Ok(spec)
    }

    /// What is to be placed, and under which name.
    pub(crate) fn placements(&self) -> impl Iterator<Item = (&Path, Option<&Path>)> {
        self.place.iter().map(|argument| split_placement(argument))
    }
}

/// Says in which flag the mistake is.
pub(crate) fn in_flag(flag: &'static str) -> impl Fn(SpecError) -> Failure {
    move |error| Failure::new(format!("--{flag}: {error}"))
}

fn parse_all<T: std::str::FromStr<Err = SpecError>>(
    texts: &[String],
    flag: &'static str,
) -> Result<Vec<T>, Failure> {
    texts.iter().map(|text| text.parse().map_err(in_flag(flag))).collect()
}

fn cgroup_version(text: &str) -> Result<CgroupVersion, Failure> {
    match text.parse() {
        Ok(CgroupVersion::Unknown(_)) => Err(SpecError::CgroupVersion(text.to_owned())),
        parsed => parsed,
    }
    .map_err(in_flag("cgroup-version"))
}

/// Bytes, or with K, M or G behind the number so many KiB, MiB or GiB.
pub(crate) fn size(flag: &str, text: &str) -> Result<u64, Failure> {
    let (digits, factor) = match text.to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        text if text.ends_with('K') => (text[..text.len() - 1].to_owned(), 1 << 10),
        text if text.ends_with('M') => (text[..text.len() - 1].to_owned(), 1 << 20),
        text if text.ends_with('G') => (text[..text.len() - 1].to_owned(), 1 << 30),
        text => (text.to_owned(), 1),
    };
    let bytes =
        digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| Failure::new(format!("--{flag}: {text:?} is not a size such as 1M")))
}

/// `SRC=NAME`, unless there is a file of that whole name; the last `=` counts.
pub(crate) fn split_placement(argument: &OsString) -> (&Path, Option<&Path>) {
    use std::os::unix::ffi::OsStrExt;
    let bytes = argument.as_bytes();
    let split = bytes.iter().rposition(|byte| *byte == b'=').filter(|_| !Path::new(argument).exists());
    let path = |bytes| Path::new(std::ffi::OsStr::from_bytes(bytes));
    match split {
        Some(at) => (path(&bytes[..at]), Some(path(&bytes[at + 1..]))),
        None => (Path::new(argument), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("1", 1), ("1K", 1 << 10), ("2MiB", 2 << 20), ("1gb", 1 << 30)] {
            assert_eq!(size("x", text).ok(), Some(bytes), "{text}");
        }
        for text in ["", "0", "M", "-1", "1T", "99999999999G"] {
            assert!(size("x", text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_placement_has_a_name_behind_its_last_equals_sign() {
        let argument = OsString::from("/no/such=file=disk.img");
        let (source, name) = split_placement(&argument);
        assert_eq!((source, name), (Path::new("/no/such=file"), Some(Path::new("disk.img"))));
    }
}
