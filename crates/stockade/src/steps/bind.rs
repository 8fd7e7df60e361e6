//! A file or directory of the host itself in the jail, without a mount on the host.
//!
//! Only the VMM's own mount namespace ever has the mount: the VMM's process attaches it on its way into the
//! jail, or a helper that joins the namespace of a VMM that runs. On the host there is an empty mount point,
//! and the kernel takes the mount away wherever it is when that is removed.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::FileType;
use rustix::io::Errno;
use stockade_syscalls::call::Call;
use stockade_syscalls::program::Program;
use stockade_syscalls::spawn::{CloneOptions, spawn};

use super::file::take_out;
use super::{Bind, StepContext, StepKind, UndoOutcome};
use crate::entry::EnterStep;
use crate::error::{Context, Error, Operation, Result};
use crate::spec::{ExitStatus, JailPath, Owner};
use crate::sys::process::PidFd;
use stockade_syscalls::descriptors::copy_above_standard;

/// What a mount point allows to whom: whoever meets it without its mount learns nothing.
const MOUNT_POINT: u32 = 0;

/// Who a mount point belongs to.
const ROOT: Owner = Owner { uid: 0, gid: 0 };

impl Bind {
    /// Makes the mount point, complete with its mount if the VMM runs already. What stands for this very bind
    /// already stays.
    fn make_mount_point(&self, ctx: &StepContext) -> Result<()> {
        let (tree, temporary) = (ctx.tree()?, ctx.temporary_name());
        let fill = |_: BorrowedFd<'_>| match &ctx.mounts {
            Some(mounts) => self.attach(mounts.as_fd(), &self.path.beside(&temporary)),
            None => Ok(()),
        };
        if self.inode.directory {
            tree.write_directory(&self.path, &temporary, MOUNT_POINT, ROOT, fill)
        } else {
            tree.write_file(&self.path, &temporary, MOUNT_POINT, Some(ROOT), fill)
        }
    }

    /// Makes the mount point again if it is gone, which is the jail's uid's to decide.
    pub(crate) fn ensure_mount_point(&self, ctx: &StepContext) -> Result<()> {
        if self.has_mount_point(ctx)? { Ok(()) } else { self.make_mount_point(ctx) }
    }

    /// Whether what is at the place of the mount point can be that: the jail's uid can make nothing like it.
    pub(crate) fn has_mount_point(&self, ctx: &StepContext) -> Result<bool> {
        let Some(found) = ctx.tree()?.look(&self.path)? else { return Ok(false) };
        let facts = rustix::fs::fstat(found).context(Operation::Inspect, &self.path)?;
        let is_ours = facts.st_uid == ROOT.uid && facts.st_mode & 0o7777 == MOUNT_POINT;
        Ok(is_ours && FileType::from_raw_mode(facts.st_mode).is_dir() == self.inode.directory)
    }

    /// Attaches it in the mount namespace of a VMM that runs, by a child that goes there: this process may
    /// have threads, which keep it where it is.
    fn attach(&self, mounts: BorrowedFd<'_>, at: &JailPath) -> Result<()> {
        let mounts = copy_above_standard(mounts).context(Operation::Bind, &self.source)?;
        let attach = Call::Attach { mount: self.detached()?, at: at.to_relative_c_string() };
        let mut program = Program::new(vec![Call::CloseOthers, Call::JoinMounts(mounts), attach, Call::End]);
        let steps = [EnterStep::CloseDescriptors, EnterStep::JoinMounts, EnterStep::Attach(self.clone())];
        let failed = |call: usize, cause| Error::Enter { step: Box::new(steps[call.min(2)].clone()), cause };
        let child = spawn(&mut program, CloneOptions::default()).context(Operation::Spawn, &self.source)?;
        let pid = child.pid.as_raw_nonzero().get();
        let (pidfd, outcome) = child.release_and_wait();
        let helper = PidFd::new(pidfd, pid);
        helper.wait_for_exit(None)?;
        match (helper.reap()?, outcome.context(Operation::Wait, pid)?) {
            (_, Some(failure)) => Err(failed(failure.call, failure.errno)),
            (Some(ExitStatus::Killed(_)), None) => Err(failed(2, Errno::INTR)),
            _ => Ok(()),
        }
    }
}

impl StepKind for Bind {
    fn apply(&self, ctx: &StepContext) -> Result<()> {
        // Whoever cannot be bound is to be known before anything is replaced.
        drop(self.detached()?);
        ctx.tree()?.make_parents(&self.path, ROOT)?;
        self.make_mount_point(ctx)
    }

    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome> {
        take_out(ctx, &self.path)
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.inode.directory { "directory" } else { "file" };
        write!(f, "{what} {}, a bind of {}", self.path, self.source)?;
        f.write_str(if self.read_only { ", read-only" } else { "" })
    }
}
