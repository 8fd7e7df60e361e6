//! The VMMs of one `run`: all of them are started, or none.

use std::time::{Duration, Instant};

use stockade::spec::JailPath;
use stockade::{Created, Error, Jail, Running, Streams, TeardownOptions, teardown_all};
use stockade_syscalls::signals::SignalFd;

use super::multiplex::Prefixed;
use super::request::JailRequest;
use super::service_manager;
use super::supervise::Supervisor;
use super::vmm_output::VmmOutput;
use crate::errors::hints;
use crate::flags::run::RunArgs;
use crate::terminal::output::{Failure, ignore_closed_stdout, print, report_leftovers};
use crate::terminal::pty::Relay;
use crate::terminal::signals::check_no_signal;
use crate::terminal::width;

/// Interval of the check for signals while a VMM gets ready.
const SIGNAL_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The event that an early signal prevents, as the message names it.
const BEFORE: &str = "all VMMs were ready";

/// The process that owns the VMM after its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attachment {
    /// This command, until it exits.
    Attached,
    /// The VMM's monitor.
    Detached,
    /// No process.
    Daemonized,
}

impl Attachment {
    fn of(args: &RunArgs, request: &JailRequest<RunArgs>) -> Self {
        match (args.detach, request.spec.daemonize) {
            (true, _) => Self::Detached,
            (false, true) => Self::Daemonized,
            (false, false) => Self::Attached,
        }
    }
}

/// A started VMM.
struct LaunchedVmm<'w> {
    request: &'w JailRequest<RunArgs>,
    attachment: Attachment,
    running: Running,
    /// `None` if the VMM has the command's streams themselves.
    output: Option<VmmOutput>,
    /// The socket that has to accept connections before the VMM is ready, if readiness was requested.
    socket: Option<JailPath>,
}

/// Started VMMs, which may not be ready yet.
pub(crate) struct Launched<'w>(Vec<LaunchedVmm<'w>>);

/// Ready VMMs.
pub(crate) struct ReadyVmms<'w>(Vec<LaunchedVmm<'w>>);

impl<'w> Launched<'w> {
    /// Starts the VMMs of the jails created for these requests. If one fails, all jails are removed.
    pub(crate) fn launch(
        requests: &'w [JailRequest<RunArgs>],
        created: Vec<Created>,
    ) -> Result<Self, Failure> {
        let widest = requests.iter().map(|request| width::of(request.id().as_str())).max();
        // A single VMM gets the streams without a prefix.
        let width = widest.filter(|_| requests.len() > 1);
        let mut launched = Self(Vec::new());
        for (request, jail) in requests.iter().zip(created) {
            match LaunchedVmm::launch(request, jail, width) {
                Ok(vmm) => launched.0.push(vmm),
                Err(failure) => {
                    tear_down(launched.0);
                    return Err(request.locate(failure));
                }
            }
        }
        Ok(launched)
    }

    /// Waits until all VMMs with a requested socket are ready. If one fails, all jails are removed.
    pub(crate) fn wait_ready(mut self, signals: &SignalFd) -> Result<ReadyVmms<'w>, Failure> {
        match self.0.iter_mut().try_for_each(|vmm| vmm.wait_ready(signals)) {
            Ok(()) => Ok(ReadyVmms(self.0)),
            Err(failure) => {
                tear_down(self.0);
                Err(failure)
            }
        }
    }
}

impl<'w> ReadyVmms<'w> {
    /// Announces all VMMs, detaches those that outlive this command, and returns the others for supervision.
    /// If one cannot be detached, all jails are removed.
    pub(crate) fn announce_and_detach(mut self) -> Result<Supervisor<'w>, Failure> {
        let mut detached = self.0.iter_mut().filter(|vmm| vmm.attachment == Attachment::Detached);
        let result =
            detached.try_for_each(|vmm| vmm.running.detach().map_err(|error| vmm.request.locate(error)));
        if let Err(failure) = result {
            tear_down(self.0);
            return Err(failure);
        }
        let announced = self.0.iter().filter(|vmm| vmm.attachment != Attachment::Attached);
        let announcements: String = announced.map(LaunchedVmm::announcement).collect();
        match &self.0[..] {
            [only] if only.attachment != Attachment::Attached => {
                service_manager::ready_as(only.running.pid());
            }
            _ => service_manager::ready(),
        }
        let mut supervisor = Supervisor::default();
        // Detached and daemonized VMMs are dropped here and run on.
        for vmm in self.0.into_iter().filter(|vmm| vmm.attachment == Attachment::Attached) {
            supervisor.add(vmm.request, vmm.running, vmm.output);
        }
        ignore_closed_stdout(print(&announcements)).map(|()| supervisor)
    }
}

impl<'w> LaunchedVmm<'w> {
    fn launch(
        request: &'w JailRequest<RunArgs>,
        jail: Created,
        width: Option<usize>,
    ) -> Result<Self, Failure> {
        let args = &request.description.args.own;
        let attachment = Attachment::of(args, request);
        let (log_bytes, socket) =
            (args.ready.log_bytes()?, args.ready.socket(&request.spec, "choose another")?);
        let (running, output) = match (attachment, width) {
            (Attachment::Detached, _) => (jail.launch_monitored(log_bytes), None),
            (Attachment::Attached, Some(width)) => {
                let (streams, output) = Prefixed::new(request.id(), width)?;
                (jail.launch(streams), Some(VmmOutput::Prefixed(output)))
            }
            (Attachment::Attached, None) => {
                let (relay, streams) = Relay::new()?;
                (jail.launch(streams), relay.map(VmmOutput::Relayed))
            }
            // Its streams are redirected to `/dev/null` before it is executed.
            (Attachment::Daemonized, _) => (jail.launch(Streams::default()), None),
        };
        let running = running.map_err(|error| hints::launch_failed(&error, &request.spec))?;
        Ok(Self { request, attachment, running, output, socket })
    }

    /// Waits until the VMM accepts connections, if readiness was requested. An earlier signal ends the wait.
    fn wait_ready(&mut self, signals: &SignalFd) -> Result<(), Failure> {
        let Some(socket) = &self.socket else {
            // The supervisor handles signals for an attached VMM.
            let is_attached = self.attachment == Attachment::Attached;
            return if is_attached { Ok(()) } else { check_no_signal(signals, BEFORE) };
        };
        let timeout = self.request.description.args.own.ready.timeout();
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if let Some(relay) = self.output.as_mut().and_then(VmmOutput::relay_mut) {
                relay.step();
            }
            let left =
                deadline.map_or(timeout, |deadline| deadline.saturating_duration_since(Instant::now()));
            match self.running.wait_ready(socket, left.min(SIGNAL_CHECK_INTERVAL)) {
                Ok(()) => return Ok(()),
                Err(Error::NotReady { id, socket, .. }) if left <= SIGNAL_CHECK_INTERVAL => {
                    return Err(self.request.locate(Error::NotReady { id, socket, waited: timeout }));
                }
                Err(Error::NotReady { .. }) => (),
                Err(error) => return Err(self.request.locate(error)),
            }
            check_no_signal(signals, BEFORE)?;
        }
    }

    /// Returns the line on stdout for a VMM that outlives this command.
    fn announcement(&self) -> String {
        match self.attachment {
            Attachment::Daemonized => format!("{} {}\n", self.request.id(), self.running.pid()),
            _ => format!("{}\n", self.request.id()),
        }
    }
}

/// Stops the VMMs and removes their jails. Errors are dropped: the caller reports the first failure.
fn tear_down(vmms: Vec<LaunchedVmm<'_>>) {
    let grace = vmms.iter().map(|vmm| vmm.request.description.args.own.grace()).max();
    let mut outputs = Vec::new();
    let jails = vmms.into_iter().map(|vmm| {
        outputs.extend(vmm.output);
        Jail::Running(vmm.running)
    });
    let reports = teardown_all(jails.collect(), TeardownOptions { grace, ..TeardownOptions::default() });
    reports.into_iter().flatten().for_each(|report| report_leftovers(&report));
    outputs.into_iter().for_each(VmmOutput::finish);
}
