//! The original's words for what can fail: callers match on them.

use stockade::step::enter::EnterStep;
use stockade::{Error, Operation};

/// The line that the original prints for this error; our own where it has none.
pub(crate) fn of(error: &Error) -> String {
    match error {
        Error::Operation { operation, argument, cause } => match operation {
            Operation::CreateDirectory => format!("Failed to create directory {argument}: {cause}"),
            Operation::Open => format!("Failed to open file {argument}: {cause}"),
            Operation::Read => format!("Failed to read file {argument} into a string: {cause}"),
            Operation::Write => format!("Failed to write to {argument}: {cause}"),
            Operation::Copy => format!("Failed to copy {argument}: {cause}"),
            Operation::ChangeOwner => format!("Failed to change owner for {argument}: {cause}"),
            Operation::ChangeMode => format!("Failed to change permissions on {argument}: {cause}"),
            Operation::MakeNode => format!("Failed to create {argument} via mknod inside the jail: {cause}"),
            Operation::Inspect => format!("Cannot get metadata for a file: {argument}: {cause}"),
            Operation::InheritCgroup => {
                let (directory, file) = argument.rsplit_once('/').unwrap_or(("", argument));
                format!("Failed to inherit cgroups configurations from file {file} in path {directory}")
            }
            _ => error.to_string(),
        },
        Error::Enter { step, cause } => match (at(step), &**step) {
            (Some(what), _) => format!("{what}: {cause}"),
            (None, EnterStep::LimitFileSize { .. }) => {
                "Failed to set limit for resource: size of file".to_owned()
            }
            (None, EnterStep::LimitOpenFiles { .. }) => {
                "Failed to set limit for resource: number of file descriptors".to_owned()
            }
            (None, EnterStep::JoinCgroup { file }) => format!("Failed to write to {file}: {cause}"),
            (None, EnterStep::WritePidFile { path }) => format!("Failed to open file {path}: {cause}"),
            _ => error.to_string(),
        },
        _ => error.to_string(),
    }
}

/// The original's words for a step whose failure it reports with the cause behind them.
fn at(step: &EnterStep) -> Option<&'static str> {
    Some(match step {
        EnterStep::JoinNetns { .. } => "Failed to join network namespace: netns",
        EnterStep::UnshareMounts => "Failed to unshare into new mount namespace",
        EnterStep::MakeMountsSlaves => "Failed to change the propagation type to slave",
        EnterStep::CloneTree | EnterStep::AttachTree => "Failed to bind mount the jail root directory",
        EnterStep::GoToRoot { .. } | EnterStep::EnterTree => "Failed to change current directory",
        EnterStep::PivotRoot => "Failed to pivot root",
        EnterStep::DetachOldRoot => "Failed to unmount the old jail root",
        EnterStep::ChangeToRoot => "Failed to chdir into chroot directory",
        EnterStep::Daemonize => "Failed to daemonize",
        EnterStep::NullStreams => "Failed to duplicate fd",
        EnterStep::NewPidNamespace => "Failed cloning into a new child process",
        EnterStep::SetGid { .. }
        | EnterStep::ClearGroups
        | EnterStep::SetUid { .. }
        | EnterStep::ResetSignals
        | EnterStep::Execute { .. } => "Failed to exec into Firecracker",
        _ => return None,
    })
}
