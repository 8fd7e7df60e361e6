//! Orphans of a container in which this command is the first process: no other process waits for them.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;
use stockade::spec::reason;
use stockade_syscalls::children::{exited_child, reap};
use stockade_syscalls::signals::SignalFd;

use crate::terminal::output::Failure;

/// Waits for the orphans, if the kernel leaves them to this process.
#[derive(Default)]
pub(crate) struct Orphans(Option<SignalFd>);

impl Orphans {
    pub(crate) fn watch() -> Result<Self, Failure> {
        if !rustix::process::getpid().is_init() {
            return Ok(Self(None));
        }
        let exits = SignalFd::block(&[Signal::CHILD]);
        let exits = exits.map_err(|e| Failure::new(format!("cannot block SIGCHLD: {}", reason(&e))))?;
        Ok(Self(Some(exits)))
    }

    /// The file descriptor that is readable once a child has exited.
    pub(crate) fn waits_for(&self) -> Option<PollFd<'_>> {
        self.0.as_ref().map(|exits| PollFd::from_borrowed_fd(exits.as_fd(), PollFlags::IN))
    }

    /// Waits for the orphans that have exited.
    ///
    /// # Arguments
    /// `is_own`: whether this command itself waits for a child, and so needs its exit status.
    pub(crate) fn reap(&self, is_own: impl Fn(i32) -> bool) {
        let Some(exits) = &self.0 else { return };
        while let Ok(Some(_)) = exits.take() {}
        // The command takes its own child first: the kernel shows the same one until then.
        while let Ok(Some(child)) = exited_child()
            && !is_own(child.as_raw_nonzero().get())
            && reap(child).is_ok()
        {}
    }
}
