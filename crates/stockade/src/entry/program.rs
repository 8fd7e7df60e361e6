//! From the list of enter steps to a program that a child can carry out: every file opened, every byte
//! allocated.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::Resource;
use rustix::thread::CapabilitySet;
use stockade_syscalls::call::{Argument as RawArgument, Call, Execute};
use stockade_syscalls::descriptors::{above_standard, copy_above_standard};
use stockade_syscalls::filter::Filter;
use stockade_syscalls::inherited::Attribute;
use stockade_syscalls::program::Program;

use super::{Argument, EnterStep, EntryError};
use crate::spec::HostPath;
use crate::sys::error::{Context, Operation};
use crate::sys::jail_root::{Tree, open_directory};

/// The capabilities of visitors that stay root, beyond what their uid lets them: over files, and none over the host.
const ROOTS_CAPABILITIES: CapabilitySet =
    CapabilitySet::CHOWN.union(CapabilitySet::DAC_OVERRIDE).union(CapabilitySet::FOWNER);

/// A program, and what it needs of the clone that begins it.
pub(crate) struct Entry {
    pub(crate) program: Program,
    /// The cgroup to be born in.
    pub(crate) cgroup: Option<OwnedFd>,
    /// Which step each call of the program belongs to.
    steps: Vec<EnterStep>,
    /// The step that the clone itself is.
    clone: Option<EnterStep>,
}

impl Entry {
    /// Opens and allocates everything that the steps need. `streams` replaces the standard streams.
    pub(crate) fn new(
        steps: &[EnterStep],
        root: &Tree,
        streams: [Option<OwnedFd>; 3],
    ) -> Result<Self, EntryError> {
        let mut calls = Vec::with_capacity(steps.len() + 1);
        let mut called = Vec::with_capacity(steps.len() + 1);
        let mut cgroup = None;
        if streams.iter().any(Option::is_some) {
            calls.push(Call::Redirect(own(streams)?));
            called.push(EnterStep::TakeStreams);
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
                called.push(step);
            }
        }
        let clone = steps.iter().find(|step| matches!(step, EnterStep::Clone { .. })).cloned();
        Ok(Self { program: Program::new(calls), cgroup, steps: called, clone })
    }

    /// The error that a failed clone is.
    pub(crate) fn clone_error(&self, cause: Errno) -> EntryError {
        EntryError::Failed { step: Box::new(self.clone.clone().unwrap_or(EnterStep::WaitForGo)), cause }
    }

    /// The error that a failure of the program's call number `call` is.
    pub(crate) fn error(&self, call: usize, cause: Errno) -> EntryError {
        let step = self.steps.get(call).cloned().unwrap_or(EnterStep::WaitForGo);
        EntryError::Failed { step: Box::new(step), cause }
    }
}

/// The calls that a step is, each with the step that it is told as; none for the clone itself.
pub(crate) fn calls_of(step: &EnterStep, root: &Tree) -> Result<Vec<(EnterStep, Call)>, EntryError> {
    if let EnterStep::Reset { attributes } = step {
        let reset = |&one: &Attribute| (EnterStep::Reset { attributes: vec![one] }, Call::Reset(one));
        return Ok(attributes.iter().map(reset).collect());
    }
    if *step == EnterStep::KeepFileCapabilities {
        let calls = [Call::BoundCapabilities, Call::KeepCapabilities].map(|call| call(ROOTS_CAPABILITIES));
        return Ok(calls.map(|call| (step.clone(), call)).into());
    }
    Ok(call(step, root)?.map(|call| (step.clone(), call)).into_iter().collect())
}

/// The call that a step is; `None` for the clone itself.
fn call(step: &EnterStep, root: &Tree) -> Result<Option<Call>, EntryError> {
    Ok(Some(match step {
        // The clone itself, what the launcher does meanwhile, and what helpers and visitors add with a call of their own.
        EnterStep::Clone { .. }
        | EnterStep::TakeStreams
        | EnterStep::TakeTerminal
        | EnterStep::JoinMounts
        | EnterStep::JoinNamespaces
        | EnterStep::Reset { .. }
        | EnterStep::ResetByLauncher { .. }
        | EnterStep::KeepFileCapabilities
        | EnterStep::ExecuteVisitor { .. } => return Ok(None),
        EnterStep::CloseDescriptors => Call::CloseOthers,
        EnterStep::NewSession => Call::NewSession,
        EnterStep::JoinNetns { path } => Call::JoinNetwork(open(path, OFlags::RDONLY, Operation::Open)?),
        EnterStep::LimitFileSize { bytes } => Call::Limit { resource: Resource::Fsize, value: *bytes },
        EnterStep::LimitOpenFiles { count } => Call::Limit { resource: Resource::Nofile, value: *count },
        EnterStep::JoinCgroup { file } => {
            Call::Write { file: open(file, OFlags::WRONLY, Operation::Write)?, text: b"0" }
        }
        EnterStep::GoToRoot { path } => {
            Call::ChangeDirectory(root.shared_root().context(Operation::Open, path)?)
        }
        EnterStep::JoinSkeleton { path } => Call::JoinMounts(open(path, OFlags::RDONLY, Operation::Open)?),
        EnterStep::UnshareMounts => Call::UnshareMounts,
        EnterStep::MakeMountsSlaves => Call::MakeMountsSlaves,
        EnterStep::CloneTree => Call::CloneTree,
        EnterStep::CloneTreeAlone => Call::CloneTreeAlone,
        EnterStep::AttachTree => Call::AttachTree,
        EnterStep::EnterTree => Call::EnterTree,
        EnterStep::MakeTreeSlave => Call::MakeTreeSlave,
        EnterStep::PivotRoot => Call::PivotRoot,
        EnterStep::DetachOldRoot => Call::DetachOldRoot,
        EnterStep::ChangeRoot => Call::ChangeRoot,
        EnterStep::ChangeToRoot => Call::ChangeToRoot,
        EnterStep::Attach(bind) => {
            Call::Attach { mount: bind.detached()?, at: bind.path.to_relative_c_string() }
        }
        EnterStep::NullStreams => {
            let null = || {
                open(&std::path::PathBuf::from("/dev/null").into(), OFlags::RDWR, Operation::Open).map(Some)
            };
            Call::Redirect([null()?, null()?, null()?])
        }
        EnterStep::Daemonize => Call::Daemonize,
        EnterStep::ForkAgain => Call::ForkAgain,
        EnterStep::NewPidNamespace => Call::NewPidNamespace,
        EnterStep::WritePidFile { path } => Call::WritePidFile(path.to_c_string()),
        EnterStep::WaitForGo => Call::WaitForGo,
        EnterStep::SetGid { gid } => Call::SetGid(*gid),
        EnterStep::ClearGroups => Call::ClearGroups,
        EnterStep::SetUid { uid } => Call::SetUid(*uid),
        EnterStep::EmptyBoundingSet => Call::BoundCapabilities(CapabilitySet::empty()),
        EnterStep::ClearCapabilities => Call::KeepCapabilities(CapabilitySet::empty()),
        EnterStep::ClearInheritable => Call::ClearInheritable,
        EnterStep::BecomeUndumpable => Call::BecomeUndumpable,
        EnterStep::NoNewPrivileges => Call::NoNewPrivileges,
        EnterStep::MakeRootNosuid => Call::MakeRootNosuid,
        EnterStep::ConfineRoot => Call::Filter(Filter::of_root_in_a_jail()),
        EnterStep::ResetSignals => Call::ResetSignals,
        EnterStep::DefaultSignals => Call::DefaultSignals,
        EnterStep::Execute { path, arguments } => {
            let arguments = arguments.iter().map(raw_argument).collect::<Result<_, _>>()?;
            Call::Execute(Execute::new(path.to_c_string(), arguments))
        }
    }))
}

fn raw_argument(argument: &Argument) -> Result<RawArgument, EntryError> {
    Ok(match argument {
        Argument::Text(text) => {
            let text = CString::new(text.as_bytes()).map_err(|_| Errno::INVAL);
            RawArgument::Text(text.context(Operation::Spawn, argument)?)
        }
        Argument::CpuTime => RawArgument::CpuTime,
        Argument::EarlierCpuTime => RawArgument::EarlierCpuTime,
    })
}

/// Copies of the streams that are clear of the numbers they go to, and that end with the exec.
pub(crate) fn own(streams: [Option<OwnedFd>; 3]) -> Result<[Option<OwnedFd>; 3], EntryError> {
    let mut own = [None, None, None];
    for (slot, stream) in own.iter_mut().zip(streams) {
        // Even one with a high number: its owner may not have marked it to end with the exec.
        let copied = stream.map(copy_above_standard).transpose();
        *slot = copied.context(Operation::Open, "a standard stream")?;
    }
    Ok(own)
}

/// Opens a file for the child, clear of the standard streams' numbers.
fn open(path: &HostPath, flags: OFlags, operation: Operation) -> Result<OwnedFd, EntryError> {
    let opened = rustix::fs::open(path.as_path(), flags | OFlags::CLOEXEC, Mode::empty());
    Ok(opened.and_then(above_standard).context(operation, path)?)
}
