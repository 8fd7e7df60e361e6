//! The original's words for what can fail: callers match on them.

use std::fmt::Display;
use std::path::Path;

use stockade::entry::EnterStep;
use stockade::spec::JailSpec;
use stockade::{Error, Layout, Operation};

/// The default version is 1 even where there is only version 2, as with the original.
pub(crate) const ONLY_VERSION_2: &str = "No hierarchy found for this cgroup version.
Hint: This host has version 2 of cgroups only, pass --cgroup-version 2.";

/// The message for an error of the checks before anything is made.
pub(crate) fn of_check(error: &Error) -> String {
    match error {
        Error::Operation { operation, argument, cause } => of_operation(*operation, argument, cause),
        Error::MoveToParent { cgroup, cause } => {
            // In the words of the C library that the original is linked with.
            let cause = match cause.raw_os_error() {
                EBUSY => format!("Resource busy (os error {EBUSY})"),
                _ => cause.to_string(),
            };
            format!(
                "Failed to move process to cgroup ({cgroup}): {cause}.\nHint: If you intended to create a child \
                 cgroup under {cgroup}, pass any --cgroup parameters."
            )
        }
        _ => error.to_string(),
    }
}

const EBUSY: i32 = 16;

/// The messages for what fails while the jail is made and entered.
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
                of_operation(*operation, self.in_words(*operation, argument), cause)
            }
            Error::HardLink { path } => format!("Detected hard link at: {path}"),
            // The kernel's own reason why the original cannot overwrite an executable that runs.
            Error::Running { pid, .. } => format!(
                "Failed to open {}: Text file busy (os error 26)\nHint: The jail is in use by process {pid}.",
                self.executable
            ),
            Error::Enter { step, cause } => of_step(step, cause).unwrap_or_else(|| error.to_string()),
            _ => of_check(error),
        }
    }

    /// The original makes folders and nodes from inside and names them as they are called there; the root
    /// and the executable are made from outside.
    fn in_words<'a>(&self, operation: Operation, argument: &'a str) -> &'a str {
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
        Operation::Read => format!("Failed to read file {argument} into a string: {cause}"),
        Operation::ReadLine => format!("Failed to read line from {argument}: {cause}"),
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
        other => format!("Failed to {other} {argument}: {cause}"),
    }
}

/// The original's words for a step of the process; none for a step that only a launcher makes.
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
