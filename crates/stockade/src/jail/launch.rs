//! Launching the VMM of a created jail.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, ResolveFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use stockade_syscalls::descriptors::null;
use stockade_syscalls::monitor::{Monitor, MonitorConfig, spawn_monitored};
use stockade_syscalls::spawn::{Child, CloneOptions, spawn};

use crate::entry::EnterStep;
use crate::entry::program::Entry;
use crate::error::{Context, Error, Operation, Result};
use crate::host::{Host, TemplateMounts};
use crate::jail::create::Created;
use crate::jail::locked::LockedJail;
use crate::jail::running::Running;
use crate::plan::{LaunchMode, Plan, is_tracking_cgroup, plan};
use crate::spec::clock::monotonic_us;
use crate::spec::{JailPath, Netns};
use crate::state::Receipt;
use crate::steps::{Step, UndoOutcome, Vmm};
use crate::sys::ProcessRef;
use crate::sys::jail_root::JailRoot;
use crate::sys::open::open_directory;
use crate::sys::process::{Moment, PidFd};
use crate::sys::release::{Outcome, hindrance_of};

/// The standard streams of a VMM or an exec process; `None` is the caller's own.
#[derive(Debug, Default)]
pub struct Streams {
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

/// The parent of the VMM.
enum Parent {
    /// This process, with the VMM's streams.
    Launcher(Streams),
    /// A monitor, which keeps a log of at most this many bytes.
    Monitor { log_bytes: u64 },
}

impl Created {
    /// Starts the VMM in the jail, as a child of this process.
    ///
    /// The pid is on the receipt before the VMM's first instruction. If this process is killed on the way,
    /// the VMM never runs, or can be found by the receipt.
    ///
    /// # Errors
    /// Returns [`Error::Enter`] with the step that failed and the reason. The jail is torn down then, unless
    /// it is persistent (see [`Created::persist`]).
    pub fn launch(self, streams: Streams) -> Result<Running> {
        self.start(Parent::Launcher(streams))
    }

    /// Starts the VMM in the jail as the child of a monitor.
    ///
    /// The monitor outlives this process, copies the VMM's output to a log, and writes the exit status (see
    /// [`Store::ended`](crate::Store::ended) and [`Store::logs`](crate::Store::logs)).
    ///
    /// # Arguments
    /// `log_bytes` is the largest size of the log in bytes. If the log is full, its older half is removed.
    /// With 0 the output is dropped.
    ///
    /// # Errors
    /// Returns the errors of [`Created::launch`].
    pub fn launch_monitored(self, log_bytes: u64) -> Result<Running> {
        self.start(Parent::Monitor { log_bytes })
    }

    fn start(mut self, parent: Parent) -> Result<Running> {
        let mut jail = self.take();
        match start(&mut jail, parent) {
            Ok((process, monitor)) => {
                log::info!("VMM runs as pid {}", process.pid());
                Ok(Running::new(jail, process, monitor))
            }
            Err(error) => {
                // The first error is returned. Steps that could not be undone stay on the receipt for `gc`.
                let _ = jail.roll_back();
                Err(error)
            }
        }
    }
}

fn start(jail: &mut LockedJail, parent: Parent) -> Result<(PidFd, Option<PidFd>)> {
    if jail.receipt.keeper.is_none() || has_lost_template_mounts(&jail.receipt.enter) {
        renew_plan(jail)?;
    }
    jail.receipt.expect_thawed()?;
    for step in &jail.receipt.enter {
        log::debug!("the VMM's process will {step}");
    }
    let (streams, log) = match parent {
        Parent::Launcher(streams) => ([streams.stdin, streams.stdout, streams.stderr], None),
        Parent::Monitor { log_bytes } => {
            let (streams, output) = log_streams(log_bytes).context(Operation::Open, "the VMM's streams")?;
            (streams, Some((output, log_bytes)))
        }
    };
    jail.lock.reserve(log.as_ref().is_some_and(|(output, _)| output.is_some()))?;
    let mut entry = Entry::new(&jail.entry()?, jail.ctx.tree()?, streams)?;
    let before = Moment::now();
    let (child, monitor) = spawn_vmm(jail, &mut entry, log.as_ref())?;
    // The streams are the VMM's and the monitor's now. An open copy here would keep the log from its end.
    drop(log);
    let process = ProcessRef::started_after(before, child.pid);
    let monitor = monitor.map(|monitor| {
        let reference = ProcessRef::started_after(before, monitor.pid);
        (PidFd::new(monitor.pidfd, reference.pid), reference)
    });
    let (monitor, monitor_reference) = monitor.unzip();
    let outcome = release(jail, &entry, child, process, monitor_reference);
    if outcome.is_err()
        && let Some(monitor) = &monitor
    {
        monitor.reap()?;
    }
    Ok((outcome?, monitor))
}

/// Clones the VMM's process, and its monitor if it has one.
///
/// # Arguments
/// `log` is the output that the monitor reads, unless it is dropped, and the most bytes that its log may hold.
fn spawn_vmm(
    jail: &LockedJail,
    entry: &mut Entry,
    log: Option<&(Option<OwnedFd>, u64)>,
) -> Result<(Child, Option<Monitor>)> {
    let cgroup = entry.cgroup.take();
    let spec = &jail.receipt.spec;
    let options = CloneOptions {
        pid_namespace: spec.new_pid_ns,
        network_namespace: spec.netns == Netns::New,
        cgroup: cgroup.as_ref().map(AsFd::as_fd),
        ..CloneOptions::default()
    };
    let Some((output, log_bytes)) = log else {
        let child = spawn(&mut entry.program, options).map_err(|cause| entry.clone_error(cause))?;
        return Ok((child, None));
    };
    let directory = jail.lock.entry()?;
    // Without it the monitor records no number, and the readers of the record look into the cgroup themselves.
    let memory_cgroup = jail
        .receipt
        .memory_cgroup()
        .and_then(|cgroup| open_directory(CWD, cgroup.as_path(), ResolveFlags::empty()).ok());
    let config = MonitorConfig {
        memory_cgroup: memory_cgroup.as_ref().map(AsFd::as_fd),
        entry: directory.as_fd(),
        log: output.as_ref().map(|output| (output.as_fd(), *log_bytes)),
        title: CString::new(jail.receipt.id.as_str()).unwrap_or_default(),
    };
    let mut hindered = None;
    let mut give_up = |child: Option<Pid>, waited| {
        let pid = child.map_or(0, |pid| pid.as_raw_nonzero().get());
        hindered = hindrance_of(pid, waited).map(|hindrance| (pid, hindrance));
        hindered.is_some()
    };
    let spawned = spawn_monitored(&mut entry.program, options, &config, &mut give_up);
    let (child, monitor) = spawned.map_err(|cause| match hindered {
        Some((pid, hindrance)) => Error::hindered(pid, hindrance),
        None => entry.clone_error(cause).into(),
    })?;
    Ok((child, Some(monitor)))
}

/// Plans again for a jail that was created some time ago, and may have been started in vain.
fn renew_plan(jail: &mut LockedJail) -> Result<()> {
    jail.lock.remove_monitor_files()?;
    jail.receipt.spec.started_us = monotonic_us();
    let host = Host::read_for(&jail.receipt.spec)?;
    let plan = plan(&jail.receipt.spec, &host, LaunchMode::Spawn)?;
    renew_tracking_cgroup(jail, &plan)?;
    jail.receipt.enter = plan.enter;
    Ok(())
}

/// Whether the plan uses the template mount namespace, and that was removed since.
fn has_lost_template_mounts(enter: &[EnterStep]) -> bool {
    enter.iter().any(|step| matches!(step, EnterStep::JoinTemplateMounts { .. }))
        && TemplateMounts::find().is_err()
}

/// The VMM's streams, and the end of the pipe that the monitor reads. Without a log all streams are `/dev/null`.
fn log_streams(log_bytes: u64) -> std::io::Result<([Option<OwnedFd>; 3], Option<OwnedFd>)> {
    let null = null()?;
    if log_bytes == 0 {
        let (stdout, stderr) = (null.try_clone()?, null.try_clone()?);
        return Ok(([Some(null), Some(stdout), Some(stderr)], None));
    }
    let (output, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    // A process of the jail could read the pipe empty at the moment at which the monitor finds output.
    rustix::io::ioctl_fionbio(&output, true)?;
    let stderr = stdout.try_clone()?;
    Ok(([Some(null), Some(stdout), Some(stderr)], Some(output)))
}

/// Records the child, releases it, and waits until it has executed the VMM.
fn release(
    jail: &mut LockedJail,
    entry: &Entry,
    child: Child,
    vmm: ProcessRef,
    monitor: Option<ProcessRef>,
) -> Result<PidFd> {
    let recorded = record(jail, vmm, monitor).and_then(|()| reset(&jail.receipt.enter, child.pid));
    let (process, failed) = if let Err(error) = recorded {
        // A child that is not on the receipt exits when its channel closes.
        (PidFd::new(child.abandon(), vmm.pid), error)
    } else {
        let (process, outcome) = PidFd::release(child);
        let failed = match outcome {
            Ok(Outcome::Executed) => return Ok(process),
            Ok(Outcome::Failed(failure)) => {
                let tree = jail.ctx.tree().ok();
                entry.error(failure.call, failure.errno).explained(tree.map(JailRoot::root))
            }
            Ok(Outcome::Hindered(hindrance)) => Error::hindered(vmm.pid, hindrance),
            Err(cause) => entry.clone_error(cause).into(),
        };
        (process, failed)
    };
    // It has no descendants yet, and `cgroup.kill` would make the cgroup unusable for the next start. If it does not
    // exit, it stays on the receipt.
    jail.receipt.thaw()?;
    if jail.ctx.patience.spend(|deadline| process.kill(Some(deadline)))? {
        jail.ctx.set_exit_status(process.reap()?);
    }
    Err(failed)
}

/// Resets the attributes of the child that only the launcher can reset.
fn reset(enter: &[EnterStep], child: Pid) -> Result<()> {
    let by_launcher = enter.iter().find_map(|step| match step {
        EnterStep::ResetByLauncher { attributes } => Some(attributes),
        _ => None,
    });
    by_launcher.into_iter().flatten().try_for_each(|&attribute| {
        let failed =
            |cause| Error::Enter { step: Box::new(EnterStep::Reset { attributes: vec![attribute] }), cause };
        attribute.reset_of(child).map_err(failed)
    })
}

/// Writes the VMM's process to the receipt, and its pid to the jail's pid file.
fn record(jail: &mut LockedJail, process: ProcessRef, monitor: Option<ProcessRef>) -> Result<()> {
    let search = !is_held_together(&jail.receipt);
    jail.append(Vmm { process, search, monitor }.into())?;
    let path = JailPath::new(jail.receipt.layout.pid_file()).map_err(Error::from)?;
    jail.ctx.tree()?.write_file(&path, 0o644, None, |_, file| {
        rustix::io::write(file, process.pid.to_string().as_bytes()).map(drop).context(Operation::Write, &path)
    })
}

/// Whether a pid namespace or a cgroup contains the jail's processes, so that descendants need not be searched.
fn is_held_together(receipt: &Receipt) -> bool {
    let cgroup = |step: &Step| matches!(step, Step::CgroupV1(_) | Step::CgroupV2(_));
    receipt.spec.new_pid_ns || receipt.steps.iter().any(cgroup)
}

/// Creates the tracking cgroup again, as the new plan has it: below the cgroup of this process.
///
/// The cgroup of the process that created the jail, for example that of a session, may have been removed with
/// all below it.
fn renew_tracking_cgroup(jail: &mut LockedJail, plan: &Plan) -> Result<()> {
    let new = plan.prepare.iter().find(|step| is_tracking_cgroup(step));
    let LockedJail { ctx, receipt, lock } = jail;
    let before = receipt.steps.clone();
    // A cgroup that cannot be removed now is removed with the jail.
    receipt.steps.retain(|step| {
        !is_tracking_cgroup(step) || Some(step) == new || matches!(step.undo(ctx), UndoOutcome::Left(_))
    });
    receipt.made -= before.len() - receipt.steps.len();
    if let Some(new) = new.filter(|new| !before.contains(new)) {
        receipt.steps.insert(receipt.made, new.clone());
        receipt.made += 1;
    }
    if receipt.steps != before {
        lock.write(receipt)?;
    }
    new.map_or(Ok(()), |tracking| tracking.apply(ctx))
}
