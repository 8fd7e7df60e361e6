//! The drop-in for Firecracker's jailer: its command line over the stockade library, and nothing else.

mod flags;
mod help;
mod message;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use flags::{Asked, Given};
use stockade::spec::{
    CgroupVersion, DEFAULT_BASE, ExecFile, HostPath, JailSpec, Netns, Owner, Profile, SpecError,
};

fn main() -> ExitCode {
    if let Err(cause) = stockade::close_inherited() {
        return fail(&format!("Failed to close inherited descriptors: {cause}"));
    }
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    match flags::parse(&words) {
        Ok(Asked::Help) => say(&help::text()),
        Ok(Asked::Version) => say(&help::version()),
        Ok(Asked::Jail(given)) => match spec(&given) {
            Ok(spec) => fail(&message::of(&stockade::enter_in_place(&spec))),
            Err(error) => fail(&error.to_string()),
        },
        Err(error) => fail(&format!("Failed to parse arguments: {error}")),
    }
}

/// The specification, checked in the order in which the original checks.
fn spec(given: &Given) -> Result<JailSpec, SpecError> {
    let id = given.value("id").parse()?;
    let exec_file = ExecFile::new(Path::new(given.value("exec-file")))?;
    let base = given.optional("chroot-base-dir").unwrap_or(DEFAULT_BASE);
    let mut spec = JailSpec::new(id, exec_file, HostPath::directory(Path::new(base))?);
    let number = |name, error: fn(String) -> SpecError| {
        let text = given.value(name);
        text.parse().map_err(|_| error(text.to_owned()))
    };
    spec.owner = Owner { uid: number("uid", SpecError::Uid)?, gid: number("gid", SpecError::Gid)? };
    spec.profile = Profile::Firecracker;
    spec.netns =
        given.optional("netns").map_or(Netns::Host, |path| Netns::Join(Path::new(path).to_owned().into()));
    spec.daemonize = given.has("daemonize");
    spec.new_pid_ns = given.has("new-pid-ns");
    spec.parent_cgroup = given.optional("parent-cgroup").map(str::parse).transpose()?;
    let version = given.optional("cgroup-version").map(str::parse).transpose()?;
    spec.cgroup_version = Some(version.unwrap_or(CgroupVersion::V1));
    spec.cgroups = given.values("cgroup").map(str::parse).collect::<Result<_, _>>()?;
    let limits: Vec<_> = given.values("resource-limit").map(str::parse).collect::<Result<_, _>>()?;
    spec.limits.extend(limits);
    spec.arguments = given.extra.to_vec();
    Ok(spec)
}

fn say(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(message: &str) -> ExitCode {
    // If stderr is gone there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{message}");
    ExitCode::FAILURE
}
