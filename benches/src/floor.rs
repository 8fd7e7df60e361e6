//! The floor: the bare system calls of entering a jail.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use stockade_syscalls::call::Call;

use crate::Done;
use crate::child::execute;

/// The open files for entering a jail: its root and the pin of the template namespace.
pub(crate) struct FloorEntry {
    directory: Arc<OwnedFd>,
    pin: OwnedFd,
    /// The calls before all others.
    first: Vec<Call>,
}

impl FloorEntry {
    pub(crate) fn to(root: &Path) -> Done<Self> {
        let open = |path: &Path, flags: OFlags| {
            rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| format!("{}: {e}", path.display()))
        };
        let template = stockade::TemplateMounts::find()?;
        Ok(Self {
            directory: Arc::new(open(root, OFlags::DIRECTORY)?),
            pin: open(template.pin().as_path(), OFlags::RDONLY)?,
            first: Vec::new(),
        })
    }

    /// Adds calls before all others.
    pub(crate) fn after(self, first: Vec<Call>) -> Self {
        Self { first, ..self }
    }

    /// All calls up to the exec of `/vmm` with this output.
    pub(crate) fn calls(self, output: OwnedFd) -> Vec<Call> {
        let mut calls = vec![Call::Redirect([None, Some(output), None])];
        calls.extend(self.first);
        calls.extend([Call::CloseOthers, Call::NewSession]);
        calls.extend(switch(self.directory, self.pin));
        calls.extend([Call::SetGid(1234), Call::ClearGroups, Call::SetUid(1234)]);
        calls.push(execute(Path::new("/vmm"), &[]));
        calls
    }

    /// Only the switch of the mounts and the exec.
    pub(crate) fn switch_alone(self, output: OwnedFd) -> Vec<Call> {
        let mut calls = vec![Call::Redirect([None, Some(output), None])];
        calls.extend(switch(self.directory, self.pin));
        calls.push(execute(Path::new("/vmm"), &[]));
        calls
    }
}

/// The calls from the host's mounts to a namespace with the directory as its root.
fn switch(directory: Arc<OwnedFd>, pin: OwnedFd) -> [Call; 9] {
    [
        Call::ChangeDirectory(directory),
        Call::CloneTree,
        Call::JoinMounts(pin),
        Call::UnshareMounts,
        Call::AttachTree,
        Call::EnterTree,
        Call::MakeTreeSlave,
        Call::ChangeRoot,
        Call::ChangeToRoot,
    ]
}
