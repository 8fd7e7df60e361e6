//! Hints for library errors: the flag, the cause, and the fix.

use std::path::{Path, PathBuf};

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use stockade::doctor::LONGEST_SOCKET_PATH;
use stockade::entry::EnterStep;
use stockade::spec::libraries::{Interpreter, LibraryError};
use stockade::spec::{CgroupVersion, JailSpec, SpecError, not_expanded};
use stockade::steps::Note;
use stockade::{CgroupLayout, Error, ErrorKind, Layout, PlacementError};

use crate::terminal::output::{Code, Failure};

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        failure(&error)
    }
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        failure(&error.into())
    }
}

/// The failure of a library error. A specification's field is named after its flag.
fn failure(error: &Error) -> Failure {
    match error {
        Error::Spec(SpecError::Argument { name, cause }) => {
            let text = cause.to_string();
            let bare = bare_executable(name, cause);
            Failure::flag(
                *name,
                match (text.strip_suffix("check the path"), bare) {
                    (Some(text), Some(fix)) => format!("{text}{fix}"),
                    _ => text + fix(name, cause),
                },
            )
        }
        // The check needs the host's facts, so the error is no `SpecError` and does not name the flag.
        Error::NoController(_) => {
            Failure::flag("cgroup", format!("{error}; run `stockade doctor` for the available controllers"))
        }
        Error::Spec(SpecError::OtherCgroupVersion { .. }) => Failure::flag("cgroup", error.to_string()),
        Error::NoParentCgroup { .. } => {
            let text = error.to_string().replace("give the jail a cgroup setting", "add --cgroup");
            Failure::flag("parent-cgroup", text)
        }
        Error::Spec(SpecError::NotANetns(_)) => Failure::flag("netns", error.to_string()),
        Error::NotRunning(_) => Failure::new(format!("{error}; see its state with `stockade ps`")),
        Error::NotReady { .. } => {
            Failure::new(format!("{error}; give the VMM's socket to --ready, or raise --timeout"))
        }
        Error::Placement(PlacementError::NotPlaced(_)) => {
            Failure::new(format!("{error}; list the placed paths with `stockade inspect`"))
        }
        _ => Failure::new(error.to_string()),
    }
}

fn fix(flag: &str, cause: &SpecError) -> &'static str {
    match (flag, cause) {
        (_, SpecError::NotFound(path, _)) if not_expanded(path).is_some() => "",
        (
            _,
            SpecError::Libraries(
                LibraryError::NoLoader { .. }
                | LibraryError::UnknownLoader { .. }
                | LibraryError::NoLibrary { .. }
                | LibraryError::NoPath { .. },
            ),
        ) => ", or --no-closure with --place for each library",
        ("id", SpecError::IdCharacter('/' | '.', 0)) => ", and name the VMM with --exec-file",
        ("uid", SpecError::Uid(text)) if text.contains(':') => ", and --gid for the group",
        ("netns", SpecError::NotFound(..)) => {
            ", or use a name without a slash for a namespace of the jail, or run `ip netns add` for one that persists"
        }
        _ => "",
    }
}

/// The fix for an executable without a slash that does not exist: other tools search for it.
fn bare_executable(flag: &str, cause: &SpecError) -> Option<String> {
    let SpecError::NotFound(path, Errno::NOENT) = cause else { return None };
    (flag == "exec-file" && path.components().count() == 1).then(|| match in_path(path) {
        Some(found) => format!("did you mean '{}'?", found.display()),
        None => "use a path, because the executable is not searched for in PATH".to_owned(),
    })
}

/// The executable of this name that a shell would find.
fn in_path(name: &Path) -> Option<PathBuf> {
    let directories = std::env::var_os("PATH")?;
    let files = std::env::split_paths(&directories).map(|directory| directory.join(name));
    files
        .into_iter()
        .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file())
}

/// The failure of a jail's creation.
pub(crate) fn create_failed(error: &Error, spec: &JailSpec) -> Failure {
    match error {
        // The files of a controller depend on the kernel, so no earlier check can find this.
        Error::CgroupSetting { cause: Errno::NOENT, .. } => {
            Failure::flag("cgroup", format!("{error}; use a file that the controller has on this host"))
        }
        Error::CgroupSetting { setting, .. } => Failure::flag(
            "cgroup",
            format!("{error}: the kernel rejects '{setting}'; use a value that this file takes"),
        ),
        Error::NoController(controller) if let Some(other) = other_version(spec, controller) => {
            let text = format!("{error} in cgroup v{}, but one in v{other}", 3 - other);
            Failure::flag("cgroup", format!("{text}; remove --cgroup-version or set it to {other}"))
        }
        Error::NoHierarchy { .. } => {
            let flag = if spec.cgroup_version.is_some() { "cgroup-version" } else { "cgroup" };
            Failure::flag(flag, error.to_string())
        }
        Error::Running { .. } => Failure::new(format!("{error}; stop it first or use another id")),
        _ => failure(error),
    }
}

/// The cgroup version that has this controller, if the requested version lacks it.
fn other_version(spec: &JailSpec, controller: &str) -> Option<u8> {
    let layout = CgroupLayout::read_for(spec).ok()?;
    match spec.cgroup_version? {
        CgroupVersion::V1 => layout.v2_with(controller).map(|_| 2),
        CgroupVersion::V2 => layout.v1_with(controller).map(|_| 1),
        CgroupVersion::Unknown(_) => None,
    }
}

/// The failure of a VMM's start.
pub(crate) fn launch_failed(error: &Error, spec: &JailSpec) -> Failure {
    match error {
        Error::Enter { step, cause: Errno::ACCESS } if matches!(**step, EnterStep::Execute { .. }) => {
            let root = Layout::new(spec).root();
            // The jail may be removed already. Its nearest existing ancestor is on the same mount.
            let existing = root.as_path().ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
            let flags = rustix::fs::statvfs(existing).map(|facts| facts.f_flag);
            if flags.is_ok_and(|flags| flags.contains(StatVfsMountFlags::NOEXEC)) {
                let base = &spec.base;
                return Failure::new(format!(
                    "cannot {step}: permission denied: '{base}' is mounted noexec; use another --chroot-base-dir or \
                     remount it with exec"
                ));
            }
            failure(error)
        }
        Error::NoInterpreter { interpreter: Interpreter::Loader(_), .. } => {
            Failure::new(format!("{error}, or omit --no-closure"))
        }
        Error::Enter { step, cause } => match &**step {
            EnterStep::LimitFileSize { .. } | EnterStep::LimitOpenFiles { .. } => {
                let text = format!(
                    "{error}: the limit exceeds stockade's own hard limit (ulimit -H); use a lower one or raise the hard limit"
                );
                Failure::flag("resource-limit", text)
            }
            EnterStep::JoinNetns { .. } if *cause == Errno::INVAL => Failure::flag(
                "netns",
                format!("{error}: the file is not a network namespace; use one of /run/netns"),
            ),
            _ => failure(error),
        },
        _ => failure(error),
    }
}

/// The failure of an exec, with the exit code of its cause.
pub(crate) fn exec_failed(error: &Error) -> Failure {
    let Error::Enter { step, .. } = error else { return Failure::new(error.to_string()) };
    let (code, fix) = match (&**step, error.kind()) {
        (EnterStep::ExecuteProgram { of_host: false, .. }, ErrorKind::NotFound) => {
            // It continues the library's hint, which ends with "use a static program of the host".
            (Code::NotFound, " with --host-program")
        }
        (EnterStep::ExecuteProgram { .. }, ErrorKind::NotFound) => (Code::NotFound, ""),
        (EnterStep::ExecuteProgram { .. }, _) => (Code::NotExecutable, ""),
        _ => (Code::OwnFailure, ""),
    };
    Failure::Coded(format!("{error}{fix}"), code)
}

/// A note about a created jail, with the flag for another result.
pub(crate) fn note(note: &Note) -> String {
    match note {
        Note::ReplacedCgroup(_) => format!("{note}; use --parent-cgroup for limits set beforehand"),
        Note::WithoutDevice { .. } => note.to_string(),
    }
}

/// Faults that will only show once the VMM runs.
pub(crate) fn warnings(spec: &JailSpec) -> impl Iterator<Item = String> {
    [without_kvm(spec), without_devices(spec), socket_too_far(spec)].into_iter().flatten()
}

fn without_devices(spec: &JailSpec) -> Option<String> {
    let base = spec.base.as_path();
    let existing = base.ancestors().find(|path| path.exists())?;
    let mount = rustix::fs::statvfs(existing).ok()?;
    mount.f_flag.contains(StatVfsMountFlags::NODEV).then(|| {
        format!(
            "'{}' is mounted nodev, so the VMM cannot open /dev/kvm or another device; use a --chroot-base-dir on \
             another filesystem",
            existing.display()
        )
    })
}

fn without_kvm(spec: &JailSpec) -> Option<String> {
    let name = &spec.profile.name;
    let needs_kvm = spec.profile.devices.iter().any(|device| device.absolute() == Path::new("/dev/kvm"));
    (needs_kvm && !Path::new("/dev/kvm").exists()).then(|| {
        format!(
            "this host has no '/dev/kvm', so '{name}' cannot run a guest; run `stockade doctor` for details"
        )
    })
}

fn socket_too_far(spec: &JailSpec) -> Option<String> {
    let socket = spec.socket()?;
    let length = Layout::new(spec).on_host(&socket).as_path().as_os_str().len();
    (length > LONGEST_SOCKET_PATH).then(|| {
        format!(
            "the VMM's socket '{socket}' has a path of {length} bytes on the host, and a process can connect to \
             {LONGEST_SOCKET_PATH} bytes at most; use a shorter --chroot-base-dir or --id"
        )
    })
}
