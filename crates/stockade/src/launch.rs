//! Launching the VMM in a prepared jail.

use std::os::fd::{AsFd, OwnedFd};

use stockade_syscalls::spawn::{Birth, spawn};

use crate::enter::Entry;
use crate::error::{Context, Error, Operation, Result};
use crate::prepare::{Jail, Prepared};
use crate::process::{PidFd, ProcessRef};
use crate::running::Running;
use crate::spec::{JailPath, Netns};
use crate::step::Vmm;

/// The VMM's standard streams; `None` is the caller's own.
#[derive(Debug, Default)]
pub struct Streams {
    /// Where it reads from.
    pub stdin: Option<OwnedFd>,
    /// Where it writes to.
    pub stdout: Option<OwnedFd>,
    /// Where it complains.
    pub stderr: Option<OwnedFd>,
}

impl Prepared {
    /// Starts the VMM in the jail.
    ///
    /// The pid is on the receipt before the VMM's first instruction: if this process is killed on the way,
    /// the VMM never runs, or can be found.
    ///
    /// # Errors
    /// [`Error::Enter`] with the step at which the child failed and why; the jail is torn down then.
    pub fn launch(mut self, streams: Streams) -> Result<Running> {
        let mut jail = self.take();
        match start(&mut jail, streams) {
            Ok(process) => Ok(Running::new(jail, process)),
            Err(error) => {
                // The first error is the one to tell; what is left stays on the receipt for gc.
                let _ = jail.tear_down();
                Err(error)
            }
        }
    }
}

fn start(jail: &mut Jail, streams: Streams) -> Result<PidFd> {
    let streams = [streams.stdin, streams.stdout, streams.stderr];
    let mut entry = Entry::new(&jail.enter, &jail.site, streams)?;
    let cgroup = entry.cgroup.take();
    let birth = Birth {
        pid_namespace: jail.spec.new_pid_ns,
        network_namespace: jail.spec.netns == Netns::New,
        cgroup: cgroup.as_ref().map(AsFd::as_fd),
    };
    let child = spawn(&mut entry.program, birth).map_err(|cause| entry.clone_error(cause))?;
    let pid = child.pid;
    let recorded = record(jail, ProcessRef::of(pid));
    if recorded.is_ok() {
        // A child that is gone already has said why.
        let _ = child.go();
    }
    // Unrecorded, the child ends when its link closes.
    recorded?;
    let (pidfd, failure) = child.outcome().context(Operation::Spawn, &jail.spec.id)?;
    let process = PidFd::new(pidfd, pid.as_raw_nonzero().get());
    match failure {
        None => Ok(process),
        Some(failure) => {
            process.reap()?;
            Err(entry.error(failure.call, failure.errno))
        }
    }
}

/// Writes down who the VMM is, on the receipt and in the jail's pid file.
fn record(jail: &mut Jail, process: ProcessRef) -> Result<()> {
    let search = jail.spec.cgroups.is_empty() && !jail.spec.new_pid_ns;
    jail.append(Vmm { process, search }.into())?;
    let path = JailPath::new(jail.receipt.layout.pid_file()).map_err(Error::from)?;
    let temporary = jail.site.temporary_name();
    jail.site.tree()?.write_file(&path, &temporary, 0o644, None, |file| {
        rustix::io::write(file, process.pid.to_string().as_bytes()).map(drop).context(Operation::Write, &path)
    })
}
