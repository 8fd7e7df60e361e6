//! What is told of an error: the flag that it is about, the cause, and the next step.

use std::path::Path;

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use stockade::spec::{JailSpec, SpecError};
use stockade::step::enter::EnterStep;
use stockade::{Error, Layout};

use crate::output::Failure;

/// What is told of an error. A part of a specification is called what its flag is.
pub(crate) fn failure(error: &Error) -> Failure {
    match error {
        Error::Argument { name, cause } => Failure::flag(*name, format!("{cause}{}", next_step(name, cause))),
        // Only the host's facts tell that it cannot be had; the flag is known all the same.
        Error::Spec(SpecError::NoController(_)) => {
            Failure::flag("cgroup", format!("{error}; stockade doctor tells which are there"))
        }
        Error::Spec(SpecError::OtherCgroupVersion { .. }) => Failure::flag("cgroup", error.to_string()),
        Error::Spec(SpecError::NoHierarchy(_)) => Failure::flag("cgroup-version", error.to_string()),
        _ => Failure::new(error.to_string()),
    }
}

fn next_step(flag: &str, cause: &Error) -> &'static str {
    match (flag, cause) {
        (_, Error::Closure(_)) => " (see --no-closure)",
        ("netns", Error::Spec(SpecError::NotFound(..))) => {
            "; a name without a path is made with the jail, ip netns add makes one that stays"
        }
        _ => "",
    }
}

/// The same for a jail that could not be made.
pub(crate) fn not_made(error: &Error, spec: &JailSpec) -> Failure {
    match error {
        // Only the kernel knows which files a controller has.
        Error::Operation { argument, cause: Errno::NOENT, .. }
            if spec.cgroups.iter().any(|setting| Path::new(argument).ends_with(&setting.file)) =>
        {
            Failure::flag("cgroup", format!("{error}; the controller has no such file on this host"))
        }
        Error::Running { .. } => Failure::new(format!("{error}; stop it first, or choose another id")),
        _ => failure(error),
    }
}

/// The same for a VMM that could not be started.
pub(crate) fn not_started(error: &Error, spec: &JailSpec) -> Failure {
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
        _ => failure(error),
    }
}

/// What a VMM will complain of, if that is known beforehand.
pub(crate) fn warning(spec: &JailSpec) -> Option<String> {
    let name = &spec.profile.name;
    let needs_kvm = ["firecracker", "cloud-hypervisor"].contains(&name.as_str());
    (needs_kvm && !Path::new("/dev/kvm").exists()).then(|| {
        format!("this host has no /dev/kvm, without which {name} runs no guest: see stockade doctor")
    })
}
