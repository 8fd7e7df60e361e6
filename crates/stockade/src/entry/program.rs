//! The compilation of enter steps to a program that a child can run.
//!
//! Every file is opened and every byte is allocated beforehand, since a child can do neither between clone and exec.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use stockade_syscalls::call::Call;
use stockade_syscalls::descriptors::{self, above_standard, copy_above_standard};
use stockade_syscalls::program::Program;

use super::{EnterStep, EntryError};
use crate::spec::HostPath;
use crate::sys::error::{Context, Operation};
use crate::sys::jail_root::JailRoot;
use crate::sys::open::open_directory;

/// A child's program, with the cgroup for its clone.
pub(crate) struct Entry {
    pub(crate) program: Program,
    /// The cgroup in which the child is created (`CLONE_INTO_CGROUP`).
    pub(crate) cgroup: Option<OwnedFd>,
    /// The step of each call of the program.
    steps: Vec<EnterStep>,
    /// The step of the clone itself.
    clone: Option<EnterStep>,
}

impl Entry {
    /// Opens and allocates everything that the steps need.
    ///
    /// # Arguments
    /// `streams`: replacements of the child's standard streams.
    ///
    /// # Errors
    /// Returns an error if a file of a step cannot be opened.
    pub(crate) fn new(
        steps: &[EnterStep],
        root: &JailRoot,
        streams: [Option<OwnedFd>; 3],
    ) -> Result<Self, EntryError> {
        let mut calls = Vec::with_capacity(steps.len() + 1);
        let mut step_of_call = Vec::with_capacity(steps.len() + 1);
        let mut cgroup = None;
        if streams.iter().any(Option::is_some) {
            calls.push(Call::Redirect(own(streams)?));
            step_of_call.push(EnterStep::TakeStreams);
        }
        for step in steps {
            if let EnterStep::Clone { cgroup: Some(directory), .. } = step {
                cgroup = Some(
                    open_directory(CWD, directory.as_path(), ResolveFlags::empty())
                        .context(Operation::Open, directory)?,
                );
            }
            for (step, call) in calls_of(step, root)? {
                calls.push(call);
                step_of_call.push(step);
            }
        }
        let clone = steps.iter().find(|step| matches!(step, EnterStep::Clone { .. })).cloned();
        Ok(Self { program: Program::new(calls), cgroup, steps: step_of_call, clone })
    }

    /// The error of a failed clone.
    pub(crate) fn clone_error(&self, cause: Errno) -> EntryError {
        EntryError::Failed { step: Box::new(self.clone.clone().unwrap_or(EnterStep::WaitForRelease)), cause }
    }

    /// The error of the program's failed call number `call`.
    pub(crate) fn error(&self, call: usize, cause: Errno) -> EntryError {
        let step = self.steps.get(call).cloned().unwrap_or(EnterStep::WaitForRelease);
        EntryError::Failed { step: Box::new(step), cause }
    }
}

/// The calls of a step, each with the step that its failure is reported as. Each attribute of a `Reset` has its own.
pub(crate) fn calls_of(step: &EnterStep, root: &JailRoot) -> Result<Vec<(EnterStep, Call)>, EntryError> {
    let step_of = |call: &Call| match call {
        Call::Reset(attribute) => EnterStep::Reset { attributes: vec![*attribute] },
        _ => step.clone(),
    };
    Ok(step.calls(root)?.into_iter().map(|call| (step_of(&call), call)).collect())
}

/// Copies of the streams, with file descriptors above 2 and close-on-exec.
pub(crate) fn own(streams: [Option<OwnedFd>; 3]) -> Result<[Option<OwnedFd>; 3], EntryError> {
    let mut own = [None, None, None];
    for (slot, stream) in own.iter_mut().zip(streams) {
        // Also copied if its number is above 2: its owner may not have set close-on-exec.
        let copied = stream.map(copy_above_standard).transpose();
        *slot = copied.context(Operation::Open, "a standard stream")?;
    }
    Ok(own)
}

/// Opens a file for the child, with a file descriptor above 2.
pub(super) fn open(path: &HostPath, flags: OFlags, operation: Operation) -> Result<OwnedFd, EntryError> {
    let opened = rustix::fs::open(path.as_path(), flags | OFlags::CLOEXEC, Mode::empty());
    Ok(opened.and_then(above_standard).context(operation, path)?)
}

/// `/dev/null`, to read and to write.
pub(super) fn null() -> Result<OwnedFd, EntryError> {
    Ok(descriptors::null().context(Operation::Open, "/dev/null")?)
}
