//! The drop-in for Firecracker's jailer: its command line over the stockade library, and nothing else.

pub mod flags;
mod help;
mod message;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use flags::{Asked, Given};
use message::Messages;
use stockade::spec::{
    CgroupSetting, CgroupVersion, DEFAULT_BASE, ExecFile, HostPath, JailSpec, Netns, Owner, Profile,
    SpecError,
};
use stockade::{CgroupLayout, Error, Host};

/// Does what the command line of this process asks for, and returns the exit code. If it asks for a jail
/// and all goes well, this never returns: the process becomes the VMM.
pub fn run() -> u8 {
    if let Err(cause) = stockade::close_inherited() {
        return fail(&format!("Failed to close inherited descriptors: {cause}"));
    }
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    match flags::parse(&words) {
        Ok(Asked::Help) => say(&help::text()),
        Ok(Asked::Version) => say(&help::version()),
        Ok(Asked::Jail(given)) => fail(&jail(&given)),
        Err(error) => fail(&format!("Failed to parse arguments: {error}")),
    }
}

/// Becomes the VMM, or returns what to say of the failure.
fn jail(given: &Given) -> String {
    let (spec, host) = match check(given) {
        Ok(checked) => checked,
        Err(error) => return message::of_check(&error),
    };
    let messages = Messages::new(&spec);
    let error = stockade::become_vmm(&spec, &host, &mut |missing| warn(&messages.of(missing)));
    messages.of(&error)
}

/// The specification and the host it is checked against, in the order in which the original checks.
fn check(given: &Given) -> Result<(JailSpec, Host), Error> {
    let id = given.value("id").parse()?;
    let exec_file = ExecFile::new(Path::new(given.value("exec-file")))?;
    let base = given.optional("chroot-base-dir").unwrap_or(DEFAULT_BASE);
    let mut spec = JailSpec::new(id, exec_file, HostPath::directory(Path::new(base))?);
    let number = |name, error: fn(String) -> SpecError| {
        let text = given.value(name);
        Owner::parse_number(text).ok_or_else(|| error(text.to_owned()))
    };
    spec.owner = Owner { uid: number("uid", SpecError::Uid)?, gid: number("gid", SpecError::Gid)? };
    spec.profile = Profile::firecracker();
    spec.netns =
        given.optional("netns").map_or(Netns::Host, |path| Netns::Join(Path::new(path).to_owned().into()));
    spec.daemonize = given.has("daemonize");
    spec.new_pid_ns = given.has("new-pid-ns");
    spec.parent_cgroup = given.optional("parent-cgroup").map(str::parse).transpose()?;
    let version = given.optional("cgroup-version").map(str::parse).transpose()?;
    let version = version.unwrap_or(CgroupVersion::V1);
    spec.cgroup_version = Some(version);
    let cgroups = check_cgroups(given, version, &mut spec)?;
    let limits: Vec<_> = given.values("resource-limit").map(str::parse).collect::<Result<_, _>>()?;
    spec.limits.extend(limits);
    spec.arguments = given.extra.to_vec();
    Ok((spec, Host::with_cgroups(cgroups)?))
}

/// Each setting in turn: its form, then whether this host has what it is for. Without one there is only the
/// parent of version 2 to move into, which happens here.
fn check_cgroups(given: &Given, version: CgroupVersion, spec: &mut JailSpec) -> Result<CgroupLayout, Error> {
    let asked = given.has("cgroup");
    if !asked && version != CgroupVersion::V2 {
        return Ok(CgroupLayout::default());
    }
    let cgroups = CgroupLayout::read_for(spec)?;
    if version == CgroupVersion::V1 && cgroups.v1.is_empty() && cgroups.v2.is_some() {
        return Err(Error::NoHierarchy(message::ONLY_VERSION_2));
    }
    cgroups.has(version)?;
    if !asked {
        cgroups.move_into_parent(spec)?;
    }
    for setting in given.values("cgroup") {
        let setting: CgroupSetting = setting.parse()?;
        cgroups.offers(version, &setting)?;
        spec.cgroups.push(setting);
    }
    Ok(cgroups)
}

fn say(text: &str) -> u8 {
    let mut stdout = std::io::stdout();
    u8::from(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err())
}

/// Tells that the jail has no source of randomness.
fn warn(message: &str) {
    // A jail that can do without it can do without the warning.
    let _ = say(&format!(
        "Warning! Could not create /dev/urandom device inside jailer: {message}.\n\
         MMDS version 2 will not be available to use.\n"
    ));
}

fn fail(message: &str) -> u8 {
    // If stderr is gone there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{message}");
    1
}
