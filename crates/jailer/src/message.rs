//! The messages of Firecracker's jailer: callers match on them.

use std::fmt::Display;
use std::path::Path;

use stockade::entry::EnterStep;
use stockade::spec::{CgroupVersion, JailSpec, SpecError};
use stockade::{Error, Layout, Operation};
use stockade_syscalls::mount_table::OWN_TABLE;

/// The default is cgroup v1 also on a host that has only v2, as in Firecracker's jailer.
const ONLY_VERSION_2: &str = "\nHint: This host has version 2 of cgroups only, pass --cgroup-version 2.";

/// The message for an error of the checks, which create nothing.
pub(crate) fn of_check(error: &Error) -> String {
    match error {
        Error::Operation { operation, argument, cause } => of_operation(*operation, argument, cause),
        Error::MoveToParent { cgroup, cause } => {
            // Firecracker's jailer is linked with musl, which has this text.
            let cause = match cause.raw_os_error() {
                EBUSY => format!("Resource busy (os error {EBUSY})"),
                _ => cause.to_string(),
            };
            format!(
                "Failed to move process to cgroup ({cgroup}): {cause}.\nHint: If you intended to create a child \
                 cgroup under {cgroup}, pass any --cgroup parameters."
            )
        }
        Error::Spec(error) => of_spec(error),
        Error::NoHierarchy { version, other } => {
            let hint = match (version, other) {
                (CgroupVersion::V1, Some(CgroupVersion::V2)) => ONLY_VERSION_2,
                (CgroupVersion::V1 | CgroupVersion::V2 | CgroupVersion::Unknown(_), _) => "",
            };
            format!("Hierarchy not found: No hierarchy found for this cgroup version.{hint}")
        }
        Error::NoController(controller) => format!("Controller {controller} is unavailable"),
        // Firecracker's jailer has no message for these.
        Error::Placement(_)
        | Error::Running { .. }
        | Error::NotRunning(_)
        | Error::Locked { .. }
        | Error::Exists(_)
        | Error::Exited(_)
        | Error::Foreign(_)
        | Error::InTheWay { .. }
        | Error::HardLink { .. }
        | Error::NotAFile(_)
        | Error::Unseen { .. }
        | Error::NotTakenOut { .. }
        | Error::Enter { .. }
        | Error::NoInterpreter { .. }
        | Error::NoParentCgroup { .. }
        | Error::CgroupSetting { .. }
        | Error::Frozen { .. }
        | Error::NotStarted { .. }
        | Error::Interrupted
        | Error::NotEnded { .. }
        | Error::ExitedEarly { .. }
        | Error::NotReady { .. }
        | Error::Receipt { .. } => error.to_string(),
    }
}

const ENOENT: i32 = 2;
const EBUSY: i32 = 16;

/// The message for a wrong flag. An error that only stockade's own flags can cause has stockade's text.
fn of_spec(error: &SpecError) -> String {
    match error {
        SpecError::IdLength(length) => {
            format!("Invalid instance ID: Invalid len ({length});  the length must be between 1 and 64")
        }
        SpecError::IdCharacter(character, position) => {
            format!("Invalid instance ID: Invalid char ({character}) at position {position}")
        }
        SpecError::NotFound(path, cause) => {
            format!("Failed to canonicalize path {}: {cause}", path.display())
        }
        SpecError::NotAFile(path) => format!("{} is not a file", path.display()),
        SpecError::NotADirectory(path) => format!("{} is not a directory", path.display()),
        SpecError::ExecName(path) => format!("The name of {} is not UTF-8", path.display()),
        SpecError::Uid(text) => format!("Invalid uid: {text}"),
        SpecError::Gid(text) => format!("Invalid gid: {text}"),
        SpecError::ParentCgroup(_) => {
            "Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'".to_owned()
        }
        SpecError::CgroupVersion(text) => format!("{text} is an invalid cgroup version specifier"),
        SpecError::CgroupFormat(text) => format!("Invalid format for cgroups: {text}"),
        SpecError::CgroupFile(text) => format!("Cgroup invalid file: {text}"),
        SpecError::LimitFormat(text) => format!("Invalid format for resources limits: {text}"),
        SpecError::LimitName(name) => format!("Invalid resource argument: {name}"),
        SpecError::LimitValue(value, cause) => {
            format!("Invalid limit value for resource: {value}: {cause}")
        }
        SpecError::NetnsName(name) => format!("Invalid network namespace name: {name:?}"),
        SpecError::NotANetns(_)
        | SpecError::Argument { .. }
        | SpecError::Libraries(_)
        | SpecError::NoAccount(..)
        | SpecError::AccountFile(..)
        | SpecError::CgroupSize(..)
        | SpecError::Size(_)
        | SpecError::NotForOwner(..)
        | SpecError::RootTooLong(..)
        | SpecError::UnsafeBase(..)
        | SpecError::NotText(_)
        | SpecError::OtherCgroupVersion { .. }
        | SpecError::Placeholder(_)
        | SpecError::UnknownProfile(..)
        | SpecError::ProfileFile(..)
        | SpecError::ReadOnlyOwner(_)
        | SpecError::JailPath(_) => error.to_string(),
    }
}

/// The messages of failures while the jail is created and entered.
pub(crate) struct Messages {
    /// The jail's root on the host.
    root: String,
    /// The executable's copy there.
    executable: String,
}

impl Messages {
    pub(crate) fn new(spec: &JailSpec) -> Self {
        let root = Layout::new(spec).root();
        let executable = root.join(spec.exec_file.name()).to_string();
        Self { root: root.to_string(), executable }
    }

    pub(crate) fn of(&self, error: &Error) -> String {
        match error {
            Error::Operation { operation, argument, cause } => {
                of_operation(*operation, self.path_in_message(*operation, argument), cause)
            }
            Error::HardLink { path } => format!("Detected hard link at: {path}"),
            // ETXTBSY: Firecracker's jailer fails to overwrite the running executable.
            Error::Running { pid, .. } => format!(
                "Failed to open {}: Text file busy (os error 26)\nHint: The jail is in use by process {pid}.",
                self.executable
            ),
            Error::NoInterpreter { step, interpreter } => {
                let failed = of_step(step, &std::io::Error::from_raw_os_error(ENOENT))
                    .unwrap_or_else(|| error.to_string());
                format!("{failed}\nHint: Its {interpreter} is not in the jail, use a static executable.")
            }
            Error::Enter { step, cause } => of_step(step, cause).unwrap_or_else(|| error.to_string()),
            _ => of_check(error),
        }
    }

    /// Converts a path on the host into the path that Firecracker's jailer prints.
    ///
    /// That program creates directories and nodes from inside the jail, and prints their paths there. It creates the
    /// root and the executable from outside.
    fn path_in_message<'a>(&self, operation: Operation, argument: &'a str) -> &'a str {
        let inside = match operation {
            Operation::ChangeMode => true,
            Operation::ChangeOwner => argument != self.executable,
            Operation::CreateDirectory => argument != self.root,
            _ => false,
        };
        match argument.strip_prefix(&self.root) {
            Some("") if inside => "/",
            Some(path) if inside && path.starts_with('/') => path,
            _ => argument,
        }
    }
}

fn of_operation(operation: Operation, argument: &str, cause: &dyn Display) -> String {
    match operation {
        Operation::CreateDirectory => format!("Failed to create directory {argument}: {cause}"),
        Operation::Open => format!("Failed to open file {argument}: {cause}"),
        Operation::OpenPlaced => format!("Failed to open {argument}: {cause}"),
        // Firecracker's jailer reads the mounts from another file of the same table.
        Operation::Read if argument == OWN_TABLE => format!("Failed to open file /proc/mounts: {cause}"),
        Operation::Read => format!("Failed to read file {argument} into a string: {cause}"),
        Operation::Write => format!("Failed to write to {argument}: {cause}"),
        Operation::Copy => format!("Failed to copy {argument}: {cause}"),
        Operation::ChangeOwner => format!("Failed to change owner for {argument}: {cause}"),
        Operation::ChangeMode => format!("Failed to change permissions on {argument}: {cause}"),
        Operation::MakeNode => format!("Failed to create {argument} via mknod inside the jail: {cause}"),
        Operation::Inspect => format!("Cannot get metadata for a file: {argument}: {cause}"),
        Operation::InheritCgroup => {
            let path = Path::new(argument);
            let file = path.file_name().unwrap_or_default().display();
            let directory = path.parent().unwrap_or(path).display();
            format!("Failed to inherit cgroups configurations from file {file} in path {directory}")
        }
        // Firecracker's jailer has no message for these.
        Operation::Mark
        | Operation::ReadMark
        | Operation::Link
        | Operation::Bind
        | Operation::Mount
        | Operation::Unmount
        | Operation::Remove
        | Operation::Rename
        | Operation::CreateNetns
        | Operation::CreateTemplateMounts
        | Operation::Spawn
        | Operation::Wait
        | Operation::Watch
        | Operation::Kill
        | Operation::Lock => format!("Failed to {operation} {argument}: {cause}"),
    }
}

/// The message for a step of the process; `None` for a step of launchers only.
fn of_step(step: &EnterStep, cause: &dyn Display) -> Option<String> {
    let what = match step {
        EnterStep::LimitFileSize { .. } => {
            return Some("Failed to set limit for resource: size of file".to_owned());
        }
        EnterStep::LimitOpenFiles { .. } => {
            return Some("Failed to set limit for resource: number of file descriptors".to_owned());
        }
        EnterStep::JoinCgroup { file } => return Some(format!("Failed to write to {file}: {cause}")),
        EnterStep::WritePidFile { path } => return Some(format!("Failed to open file {path}: {cause}")),
        EnterStep::JoinNetns { .. } => "Failed to join network namespace: netns",
        EnterStep::JoinTemplateMounts { .. } | EnterStep::UnshareMounts => {
            "Failed to unshare into new mount namespace"
        }
        EnterStep::MakeMountsSlaves | EnterStep::MakeTreeSlave => {
            "Failed to change the propagation type to slave"
        }
        EnterStep::CloneTree | EnterStep::AttachTree => "Failed to bind mount the jail root directory",
        EnterStep::GoToRoot { .. } | EnterStep::EnterTree => "Failed to change current directory",
        EnterStep::PivotRoot | EnterStep::ChangeRoot => "Failed to pivot root",
        EnterStep::DetachOldRoot => "Failed to unmount the old jail root",
        EnterStep::ChangeToRoot => "Failed to chdir into chroot directory",
        EnterStep::Daemonize | EnterStep::ForkAgain => "Failed to daemonize",
        EnterStep::NewSession => "Failed to daemonize: setsid",
        EnterStep::NullStreams => "Failed to duplicate fd",
        EnterStep::NewPidNamespace => "Failed cloning into a new child process",
        EnterStep::Reset { .. } => "Failed to join a new session keyring",
        EnterStep::SetGid { .. }
        | EnterStep::ClearCapabilities
        | EnterStep::ClearInheritable
        | EnterStep::ClearGroups
        | EnterStep::SetUid { .. }
        | EnterStep::ResetSignals
        | EnterStep::Execute { .. } => "Failed to exec into Firecracker",
        EnterStep::Clone { .. }
        | EnterStep::CloseDescriptors
        | EnterStep::Attach(_)
        | EnterStep::JoinMounts
        | EnterStep::TakeStreams
        | EnterStep::DefaultSignals
        | EnterStep::JoinNamespaces
        | EnterStep::TakeTerminal
        | EnterStep::ResetByLauncher { .. }
        | EnterStep::EmptyBoundingSet
        | EnterStep::NoNewPrivileges
        | EnterStep::BecomeUndumpable
        | EnterStep::MakeRootNosuid
        | EnterStep::CloneTreeAlone
        | EnterStep::KeepFileCapabilities
        | EnterStep::ConfineRoot
        | EnterStep::ExecuteProgram { .. }
        | EnterStep::WaitForRelease => return None,
    };
    Some(format!("{what}: {cause}"))
}
