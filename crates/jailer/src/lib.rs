//! The drop-in for Firecracker's jailer: the same command line, based on the stockade library.

pub mod flags;
mod help;
mod message;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use flags::{Action, Arguments};
use message::Messages;
use stockade::spec::{
    CgroupSetting, CgroupVersion, DEFAULT_BASE, ExecFile, HostPath, JailSpec, Netns, Owner, Profile,
    SpecError,
};
use stockade::{CgroupLayout, Error, Host};

/// Runs the command line of this process and returns the exit code. A successful start never returns: the process
/// becomes the VMM.
pub fn run() -> u8 {
    if let Err(cause) = stockade::close_inherited() {
        return fail(&format!("Failed to close inherited file descriptors: {cause}"));
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match flags::parse(&arguments) {
        Ok(Action::Help) => print(&help::text()),
        Ok(Action::Version) => print(&help::version()),
        Ok(Action::Jail(given)) => fail(&jail(&given)),
        Err(error) => fail(&format!("Failed to parse arguments: {error}")),
    }
}

/// Becomes the VMM, or returns the message of the failure.
fn jail(given: &Arguments) -> String {
    let (spec, host) = match check(given) {
        Ok(checked) => checked,
        Err(error) => return message::of_check(&error),
    };
    let messages = Messages::new(&spec);
    let error = stockade::become_vmm(&spec, &host, &mut |missing| warn(&messages.of(missing)));
    messages.of(&error)
}

/// Checks the flags in the order of Firecracker's jailer.
fn check(given: &Arguments) -> Result<(JailSpec, Host), Error> {
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
    Ok((spec, Host::with_cgroups(cgroups)))
}

/// Checks each cgroup setting: its form, then its controller on this host. With cgroup v2 and no setting, moves this
/// process into the parent cgroup.
fn check_cgroups(
    given: &Arguments,
    version: CgroupVersion,
    spec: &mut JailSpec,
) -> Result<CgroupLayout, Error> {
    let has_settings = given.has("cgroup");
    if !has_settings && version != CgroupVersion::V2 {
        return Ok(CgroupLayout::default());
    }
    let cgroups = CgroupLayout::read_for(spec)?;
    cgroups.has(version)?;
    if !has_settings {
        cgroups.move_into_parent(spec)?;
    }
    for setting in given.values("cgroup") {
        // Firecracker's jailer accepts exactly one equals sign.
        if setting.matches('=').count() != 1 {
            return Err(SpecError::CgroupFormat(setting.to_owned()).into());
        }
        let setting: CgroupSetting = setting.parse()?;
        cgroups.offers(version, &setting)?;
        spec.cgroups.push(setting);
    }
    Ok(cgroups)
}

fn print(text: &str) -> u8 {
    let mut stdout = std::io::stdout();
    u8::from(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err())
}

/// Warns that the jail has no source of randomness.
fn warn(message: &str) {
    // The start continues without the device, so a failed warning must not stop it.
    let _ = print(&format!(
        "Warning! Could not create /dev/urandom device inside jailer: {message}.\n\
         MMDS version 2 will not be available to use.\n"
    ));
}

fn fail(message: &str) -> u8 {
    // If stderr is closed, the exit code must do.
    let _ = writeln!(std::io::stderr(), "{message}");
    1
}
