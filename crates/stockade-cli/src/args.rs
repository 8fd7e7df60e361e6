//! The command line, and the specification it asks for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use stockade::spec::{DEFAULT_BASE, DEFAULT_PROFILE_DIRECTORY, JailBuilder, JailSpec, Profiles, SpecError};
use stockade::{DEFAULT_STATE_DIRECTORY, Placement, Store};

use crate::output::Failure;
use crate::placements::{demand_distinct, parse};

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
    /// Take out of a jail what was placed.
    Unplace(crate::unplace::UnplaceArgs),
    /// Start the VMM of a jail that was created, and return.
    Start(crate::start::StartArgs),
    /// Wait until VMMs have ended; print their exit codes.
    Wait(crate::wait::WaitArgs),
    /// Send VMMs a signal.
    Kill(crate::kill::KillArgs),
    /// Ask VMMs to end, and kill those that do not.
    Stop(crate::stop::StopArgs),
    /// Remove jails.
    Rm(crate::rm::RmArgs),
    /// Print what the VMM of a jail has written.
    Logs(crate::logs::LogsArgs),
    /// Run a program in a jail beside its VMM.
    Exec(crate::exec::ExecArgs),
    /// Run a shell in a jail beside its VMM.
    Shell(crate::shell::ShellArgs),
    /// Print what `run` would do, and do nothing.
    Plan(crate::plan::PlanArgs),
    /// List what is known of VMMs, or print one profile.
    Profiles(crate::profiles::ProfilesArgs),
    /// List the jails.
    Ps(crate::ps::PsArgs),
    /// Print everything that is known of a jail.
    Inspect(crate::inspect::InspectArgs),
    /// Print what happens to jails, as it happens.
    Events(crate::events::EventsArgs),
    /// Show what the jails use, as it changes.
    Top(crate::top::TopArgs),
    /// Remove what dead jails left.
    Gc(crate::gc::GcArgs),
    /// Make what starts jails faster on a host with many mounts; the first jail does the same.
    HostSetup(crate::host_setup::HostSetupArgs),
    /// Check how well a jail that runs holds its VMM.
    Audit(crate::audit::AuditArgs),
    /// Check this host: what breaks jails, what weakens them, and what mends it.
    Doctor(crate::doctor::DoctorArgs),
    /// Make a real jail, look around in it, run a tiny guest, and leave no trace.
    Demo(crate::demo::DemoArgs),
    /// Print the script by which a shell completes commands, flags, jails and profiles.
    Completions(crate::completions::CompletionsArgs),
    /// Print the manual page of a command, or write all pages.
    Man(crate::man::ManArgs),
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
    /// Place a file, directory or device into the jail (repeatable). Options are ro (read-only) and how:
    /// bind, copy, link, node or reflink.
    #[arg(long, value_name = "SRC[=NAME][:OPTION]...")]
    place: Vec<OsString>,
    /// What is known of the VMM, by name or TOML file; chosen by the executable's name unless given.
    #[arg(long, value_name = "NAME|FILE")]
    profile: Option<String>,
    /// Directory of further profiles.
    #[arg(long, value_name = "DIR", env = "STOCKADE_PROFILE_DIR", default_value = DEFAULT_PROFILE_DIRECTORY)]
    profile_dir: PathBuf,
    /// Arguments for the VMM.
    #[arg(last = true, value_name = "VMM ARGUMENTS")]
    arguments: Vec<OsString>,
}

impl JailArgs {
    /// The specification, or what is wrong with which flag.
    pub(crate) fn spec(&self) -> Result<JailSpec, Failure> {
        let mut builder = JailSpec::builder(&self.id, &self.exec_file)
            .closure(!self.no_closure)
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
                .map_err(|wrong| Failure::new(format!("{PLACE_FLAG}{}: {wrong}", argument.display())))
        });
        let placements = parsed.collect::<Result<Vec<_>, _>>()?;
        demand_distinct(&placements, PLACE_FLAG).map(|()| placements)
    }
}

/// What stands before a source in a message.
pub(crate) const PLACE_FLAG: &str = "--place ";

/// Says in which flag the mistake is.
pub(crate) fn in_flag(flag: &'static str) -> impl Fn(SpecError) -> Failure {
    move |error| Failure::new(format!("--{flag}: {error}"))
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
}
