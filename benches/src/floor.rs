//! The floor: the bare system calls of a way into a jail, as C would have them.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use stockade_syscalls::call::Call;

use crate::Done;
use crate::child::execute;

/// A jail's root and the skeleton, open: what the way in needs.
pub(crate) struct WayIn {
    directory: Arc<OwnedFd>,
    pin: OwnedFd,
    /// What comes before all else.
    first: Vec<Call>,
}

impl WayIn {
    pub(crate) fn to(root: &Path) -> Done<Self> {
        let open = |path: &Path, flags: OFlags| {
            rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| format!("{}: {e}", path.display()))
        };
        let skeleton = stockade::TemplateMounts::find()?;
        Ok(Self {
            directory: Arc::new(open(root, OFlags::DIRECTORY)?),
            pin: open(skeleton.pin().as_path(), OFlags::RDONLY)?,
            first: Vec::new(),
        })
    }

    /// The same, with these calls before all else.
    pub(crate) fn after(self, first: Vec<Call>) -> Self {
        Self { first, ..self }
    }

    /// Every call up to the exec of `/vmm`, whose output goes to `output`.
    pub(crate) fn calls(self, output: OwnedFd) -> Vec<Call> {
        let mut calls = vec![Call::Redirect([None, Some(output), None])];
        calls.extend(self.first);
        calls.extend([Call::CloseOthers, Call::NewSession]);
        calls.extend(switch(self.directory, self.pin));
        calls.extend([Call::SetGid(1234), Call::ClearGroups, Call::SetUid(1234)]);
        calls.push(execute(Path::new("/vmm"), &[]));
        calls
    }

    /// The switch of the mounts and the exec alone.
    pub(crate) fn switch_alone(self, output: OwnedFd) -> Vec<Call> {
        let mut calls = vec![Call::Redirect([None, Some(output), None])];
        calls.extend(switch(self.directory, self.pin));
        calls.push(execute(Path::new("/vmm"), &[]));
        calls
    }
}

/// From the host's mounts to a namespace with the directory as its root.
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
