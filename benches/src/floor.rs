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
}

impl WayIn {
    pub(crate) fn to(root: &Path) -> Done<Self> {
        let open = |path: &Path, flags: OFlags| {
            rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| format!("{}: {e}", path.display()))
        };
        let skeleton = stockade::Skeleton::find()?;
        Ok(Self {
            directory: Arc::new(open(root, OFlags::DIRECTORY)?),
            pin: open(skeleton.pin().as_path(), OFlags::RDONLY)?,
        })
    }

    /// Every call up to the exec of `/vmm`, whose output goes to `output`. Without `whole`, only the switch of the
    /// mounts.
    pub(crate) fn calls(self, output: OwnedFd, whole: bool) -> Vec<Call> {
        let mut calls = vec![
            Call::Redirect([None, Some(output), None]),
            Call::ChangeDirectory(self.directory),
            Call::CloneTree,
            Call::JoinMounts(self.pin),
            Call::UnshareMounts,
            Call::AttachTree,
            Call::EnterTree,
            Call::MakeTreeSlave,
            Call::ChangeRoot,
            Call::ChangeToRoot,
        ];
        if whole {
            calls.insert(1, Call::NewSession);
            calls.insert(1, Call::CloseOthers);
            calls.extend([Call::SetGid(1234), Call::ClearGroups, Call::SetUid(1234)]);
        }
        calls.push(execute(Path::new("/vmm"), &[]));
        calls
    }
}
