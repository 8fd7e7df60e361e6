//! A bind: a file or directory of the host in the jail, without a mount on the host.
//!
//! The mount is only in the VMM's own mount namespace. The VMM's process attaches it on its way into the
//! jail, or a helper that joins the namespace of a running VMM. On the host there is an empty mount point.
//! When that is removed, the kernel removes the mount in every namespace.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::fs::FileType;
use rustix::io::Errno;
use stockade_syscalls::call::{Call, Detach};
use stockade_syscalls::program::Program;
use stockade_syscalls::spawn::{CloneOptions, spawn};

use super::file::take_out;
use super::{Bind, StepContext, StepKind, Undo, UndoOutcome};
use crate::entry::EnterStep;
use crate::error::{Context, Error, Operation, Result};
use crate::spec::{ExitStatus, JailPath, Owner};
use crate::sys::process::{KILL_TIMEOUT, PidFd};
use crate::sys::release::Outcome;
use stockade_syscalls::descriptors::copy_above_standard;

/// The mode of a mount point: without its mount it reveals nothing.
const MODE: u32 = 0;

/// The owner of a mount point.
const ROOT: Owner = Owner { uid: 0, gid: 0 };

impl Bind {
    /// Creates the mount point, with its mount if the VMM is running.
    fn make_mount_point(&self, ctx: &StepContext) -> Result<()> {
        let (tree, mut attached) = (ctx.tree()?, None);
        let fill = |at: &JailPath, point: BorrowedFd<'_>| {
            if let Some(mounts) = &ctx.mounts {
                attached = Some(self.attach(mounts.as_fd(), at, point)?);
            }
            Ok(())
        };
        let made = if self.inode.directory {
            tree.write_directory(&self.path, MODE, ROOT, fill)
        } else {
            tree.write_file(&self.path, MODE, Some(ROOT), fill)
        };
        made.inspect_err(|_| {
            // The jail's uid may have moved the mount point, which has its mount everywhere.
            if let (Some(mounts), Some(mount)) = (&ctx.mounts, attached) {
                let _ = self.detach(mounts.as_fd(), mount);
            }
        })
    }

    /// Creates the mount point again if the jail's uid has removed it.
    pub(crate) fn ensure_mount_point(&self, ctx: &StepContext) -> Result<()> {
        if self.has_mount_point(ctx)? { Ok(()) } else { self.make_mount_point(ctx) }
    }

    /// Whether the mount point exists: the jail's uid cannot create one with this owner and mode.
    pub(crate) fn has_mount_point(&self, ctx: &StepContext) -> Result<bool> {
        let Some(found) = ctx.tree()?.look(&self.path)? else { return Ok(false) };
        let facts = rustix::fs::fstat(found).context(Operation::Inspect, &self.path)?;
        let is_mount_point = facts.st_uid == ROOT.uid && facts.st_mode & 0o7777 == MODE;
        Ok(is_mount_point && FileType::from_raw_mode(facts.st_mode).is_dir() == self.inode.directory)
    }

    /// Attaches the bind in the mount namespace of a running VMM, on the mount point that is open, and returns the
    /// mount.
    fn attach(&self, mounts: BorrowedFd<'_>, at: &JailPath, point: BorrowedFd<'_>) -> Result<OwnedFd> {
        let mount = self.detached()?;
        let copy = copy_above_standard(&mount).context(Operation::Bind, &self.source)?;
        let point = rustix::fs::fstat(point).context(Operation::Inspect, &self.path)?;
        let onto = Some((point.st_dev, point.st_ino));
        let attach = Call::Attach { mount: copy, at: at.to_relative_c_string(), onto };
        self.in_namespace(mounts, attach).map(|()| mount)
    }

    /// Unmounts the bind in the mount namespace of a running VMM.
    fn detach(&self, mounts: BorrowedFd<'_>, mount: OwnedFd) -> Result<()> {
        let detach = Detach::new(mount).context(Operation::Unmount, &self.path)?;
        self.in_namespace(mounts, Call::Detach(detach))
    }

    /// Makes a call in a mount namespace.
    ///
    /// A child joins the namespace, because setns(2) refuses a process with threads, as this one may be.
    fn in_namespace(&self, mounts: BorrowedFd<'_>, call: Call) -> Result<()> {
        let mounts = copy_above_standard(mounts).context(Operation::Bind, &self.source)?;
        let mut program = Program::new(vec![Call::CloseOthers, Call::JoinMounts(mounts), call, Call::End]);
        let steps = [EnterStep::CloseDescriptors, EnterStep::JoinMounts, EnterStep::Attach(self.clone())];
        let failed = |call: usize, cause| Error::Enter { step: Box::new(steps[call.min(2)].clone()), cause };
        let child = spawn(&mut program, CloneOptions::default()).context(Operation::Spawn, &self.source)?;
        let (helper, outcome) = PidFd::release(child);
        let outcome = outcome.context(Operation::Wait, helper.pid());
        let deadline = Some(Instant::now() + KILL_TIMEOUT);
        match &outcome {
            Ok(Outcome::Executed) => helper.wait_for_exit(deadline)?,
            Ok(Outcome::Failed(_) | Outcome::Hindered(_)) | Err(_) => helper.kill(deadline)?,
        };
        match (helper.reap()?, outcome?) {
            (_, Outcome::Failed(failure)) => Err(failed(failure.call, failure.errno)),
            (_, Outcome::Hindered(hindrance)) => Err(Error::hindered(helper.pid(), hindrance)),
            (Some(ExitStatus::Killed(_)), Outcome::Executed) => Err(failed(2, Errno::INTR)),
            (Some(ExitStatus::Exited(_) | ExitStatus::Unknown) | None, Outcome::Executed) => Ok(()),
        }
    }
}

impl StepKind for Bind {
    fn apply(&self, ctx: &StepContext) -> Result<()> {
        // A source that cannot be bound is refused before anything is replaced.
        drop(self.detached()?);
        ctx.tree()?.make_parents(&self.path, ROOT)?;
        self.make_mount_point(ctx)
    }
}

impl Undo for Bind {
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
