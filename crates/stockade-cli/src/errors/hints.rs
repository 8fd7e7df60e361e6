//! What is told of an error: the flag that it is about, the cause, and the next step.

use std::path::Path;

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use stockade::doctor::LONGEST_SOCKET_PATH;
use stockade::entry::EnterStep;
use stockade::spec::{CgroupSetting, CgroupVersion, JailSpec, SpecError};
use stockade::{CgroupLayout, Error, ErrorKind, Layout};

use crate::terminal::output::{Code, Failure};

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        failure(&error)
    }
}

/// What is told of an error. A part of a specification is called what its flag is.
fn failure(error: &Error) -> Failure {
    match error {
        Error::Spec(SpecError::Argument { name, cause }) => {
            Failure::flag(*name, format!("{cause}{}", next_step(name, cause)))
        }
        // Only the host's facts tell that it cannot be had; the flag is known all the same.
        Error::NoController(_) => {
            Failure::flag("cgroup", format!("{error}; stockade doctor tells which are there"))
        }
        Error::Spec(SpecError::OtherCgroupVersion { .. }) => Failure::flag("cgroup", error.to_string()),
        Error::NoHierarchy(_) => Failure::flag("cgroup-version", error.to_string()),
        _ => Failure::new(error.to_string()),
    }
}

fn next_step(flag: &str, cause: &SpecError) -> &'static str {
    match (flag, cause) {
        (_, SpecError::Libraries(_)) => " (see --no-closure)",
        ("netns", SpecError::NotFound(..)) => {
            "; a name without a path is made with the jail, ip netns add makes one that stays"
        }
        _ => "",
    }
}

/// The same for a jail that could not be made.
pub(crate) fn prepare_failed(error: &Error, spec: &JailSpec) -> Failure {
    match error {
        Error::Operation { argument, cause, .. } if let Some(setting) = setting_of(spec, argument) => {
            match *cause {
                // Only the kernel knows which files a controller has.
                Errno::NOENT => {
                    Failure::flag("cgroup", format!("{error}; the controller has no such file on this host"))
                }
                _ => Failure::flag("cgroup", format!("{setting}: the kernel refuses this value: {cause}")),
            }
        }
        Error::NoController(controller) if let Some(other) = other_version(spec, controller) => {
            let text = format!("{error} in version {}: this host has it in version {other}", 3 - other);
            Failure::flag("cgroup", format!("{text}; leave --cgroup-version out, or say {other}"))
        }
        Error::Running { .. } => Failure::new(format!("{error}; stop it first, or choose another id")),
        _ => failure(error),
    }
}

/// The setting whose file this is.
fn setting_of<'s>(spec: &'s JailSpec, file: &str) -> Option<&'s CgroupSetting> {
    spec.cgroups.iter().find(|setting| Path::new(file).ends_with(&setting.file))
}

/// The version that has a controller which the one asked for has not.
fn other_version(spec: &JailSpec, controller: &str) -> Option<u8> {
    let layout = CgroupLayout::read_for(spec).ok()?;
    match spec.cgroup_version? {
        CgroupVersion::V1 => layout.v2_with(controller).map(|_| 2),
        CgroupVersion::V2 => layout.v1_with(controller).map(|_| 1),
        CgroupVersion::Unknown(_) => None,
    }
}

/// The same for a VMM that could not be started.
pub(crate) fn launch_failed(error: &Error, spec: &JailSpec) -> Failure {
    match error {
        Error::Enter { step, cause: cause @ Errno::ACCESS }
            if matches!(**step, EnterStep::Execute { .. }) =>
        {
            let root = Layout::new(spec).root();
            // A jail that is gone by now was on the mount of what is left of the way to it.
            let there = root.as_path().ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
            let flags = rustix::fs::statvfs(there).map(|facts| facts.f_flag);
            if flags.is_ok_and(|flags| flags.contains(StatVfsMountFlags::NOEXEC)) {
                let base = &spec.base;
                return Failure::new(format!(
                    "failed to {step}: {cause}; {base} is mounted noexec: choose another --chroot-base-dir, or mount \
                     it with exec"
                ));
            }
            failure(error)
        }
        Error::Enter { step, cause } => match &**step {
            EnterStep::LimitFileSize { .. } | EnterStep::LimitOpenFiles { .. } => {
                let text = format!(
                    "failed to {step}: {cause}; no more can be had than stockade itself may (ulimit -H)"
                );
                Failure::flag("resource-limit", text)
            }
            EnterStep::JoinNetns { .. } if *cause == Errno::INVAL => {
                Failure::flag("netns", format!("failed to {step}: {cause}; it is no network namespace"))
            }
            _ => failure(error),
        },
        _ => failure(error),
    }
}

/// The same for a program that could not be run in a jail, with the exit code that tells why, and the flag that helps.
pub(crate) fn exec_failed(error: &Error) -> Failure {
    let Error::Enter { step, .. } = error else { return Failure::new(error.to_string()) };
    let (code, way_out) = match (&**step, error.kind()) {
        (EnterStep::ExecuteProgram { of_host: false, .. }, ErrorKind::NotFound) => {
            (Code::NotFound, " (see --host-program)")
        }
        (EnterStep::ExecuteProgram { .. }, ErrorKind::NotFound) => (Code::NotFound, ""),
        (EnterStep::ExecuteProgram { .. }, _) => (Code::NotExecutable, ""),
        _ => (Code::OwnFailure, ""),
    };
    Failure::Coded(format!("{error}{way_out}"), code)
}

/// What a VMM or its users will complain of, as far as that is known beforehand.
pub(crate) fn warnings(spec: &JailSpec) -> impl Iterator<Item = String> {
    [without_kvm(spec), socket_too_far(spec)].into_iter().flatten()
}

fn without_kvm(spec: &JailSpec) -> Option<String> {
    let name = &spec.profile.name;
    let needs_kvm = ["firecracker", "cloud-hypervisor"].contains(&name.as_str());
    (needs_kvm && !Path::new("/dev/kvm").exists()).then(|| {
        format!("this host has no /dev/kvm, without which {name} runs no guest: see stockade doctor")
    })
}

fn socket_too_far(spec: &JailSpec) -> Option<String> {
    let socket = spec.socket()?;
    let length = Layout::new(spec).on_host(&socket).as_path().as_os_str().len();
    (length > LONGEST_SOCKET_PATH).then(|| {
        format!(
            "the VMM's socket {socket} has a path of {length} bytes on the host, and nobody can connect to one of more \
             than {LONGEST_SOCKET_PATH}: choose a shorter --chroot-base-dir or --id"
        )
    })
}
