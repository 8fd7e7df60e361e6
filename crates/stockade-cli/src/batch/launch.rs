//! The VMMs that one `run` has started: all of them or none.

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

/// How soon a signal is heeded while a VMM gets ready.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What a signal that comes early keeps from coming about.
const BEFORE: &str = "all was ready";

/// Which process has the VMM after its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attachment {
    /// This command, until its end.
    Attached,
    /// Its monitor.
    Detached,
    /// Nobody: it is cut loose.
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

/// A VMM that was started.
struct LaunchedVmm<'w> {
    request: &'w JailRequest<RunArgs>,
    attachment: Attachment,
    running: Running,
    /// What it writes, if it has not our streams themselves.
    output: Option<VmmOutput>,
    /// Where it is to accept connections, if that is waited for.
    socket: Option<JailPath>,
}

/// VMMs that were started, and may not be ready yet.
pub(crate) struct Launched<'w>(Vec<LaunchedVmm<'w>>);

/// VMMs that are ready.
pub(crate) struct ReadyVmms<'w>(Vec<LaunchedVmm<'w>>);

impl<'w> Launched<'w> {
    /// Starts the VMMs of jails that were prepared for these requests. If one fails, all jails are removed.
    pub(crate) fn launch(
        requests: &'w [JailRequest<RunArgs>],
        prepared: Vec<Created>,
    ) -> Result<Self, Failure> {
        let widest = requests.iter().map(|request| width::of(request.id().as_str())).max();
        // One VMM has the terminal for itself.
        let width = widest.filter(|_| requests.len() > 1);
        let mut launched = Self(Vec::new());
        for (request, prepared) in requests.iter().zip(prepared) {
            match LaunchedVmm::launch(request, prepared, width) {
                Ok(vmm) => launched.0.push(vmm),
                Err(failure) => {
                    tear_down(launched.0);
                    return Err(request.locate(failure));
                }
            }
        }
        Ok(launched)
    }

    /// Waits for those that are to be ready before anybody is told of them. If one fails, all jails are removed.
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
    /// Announces all, and detaches those that run on without this command; the others are left to supervise.
    /// If one cannot be let go, all jails are removed.
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
        // The others, dropped, run on.
        for vmm in self.0.into_iter().filter(|vmm| vmm.attachment == Attachment::Attached) {
            supervisor.add(vmm.request, vmm.running, vmm.output);
        }
        ignore_closed_stdout(print(&announcements)).map(|()| supervisor)
    }
}

impl<'w> LaunchedVmm<'w> {
    fn launch(
        request: &'w JailRequest<RunArgs>,
        prepared: Created,
        width: Option<usize>,
    ) -> Result<Self, Failure> {
        let args = &request.description.args.own;
        let attachment = Attachment::of(args, request);
        let (log_bytes, socket) = (args.ready.log_bytes()?, args.ready.socket(&request.spec)?);
        let (running, output) = match (attachment, width) {
            (Attachment::Detached, _) => (prepared.launch_watched(log_bytes), None),
            (Attachment::Attached, Some(width)) => {
                let (streams, output) = Prefixed::new(request.id(), width)?;
                (prepared.launch(streams), Some(VmmOutput::Prefixed(output)))
            }
            (Attachment::Attached, None) => {
                let (relay, streams) = Relay::new()?;
                (prepared.launch(streams), relay.map(VmmOutput::Relayed))
            }
            // On `/dev/null` before it runs.
            (Attachment::Daemonized, _) => (prepared.launch(Streams::default()), None),
        };
        let running = running.map_err(|error| hints::launch_failed(&error, &request.spec))?;
        Ok(Self { request, attachment, running, output, socket })
    }

    /// Waits until the VMM accepts connections, if it is to. A signal that comes before ends the wait.
    fn wait_ready(&mut self, signals: &SignalFd) -> Result<(), Failure> {
        let Some(socket) = &self.socket else {
            // An attached VMM is asked to end as at any other time.
            let is_attached = self.attachment == Attachment::Attached;
            return if is_attached { Ok(()) } else { check_no_signal(signals, BEFORE) };
        };
        let patience = self.request.description.args.own.ready.patience();
        let deadline = Instant::now().checked_add(patience);
        loop {
            if let Some(relay) = self.output.as_mut().and_then(VmmOutput::relay_mut) {
                relay.step();
            }
            let left =
                deadline.map_or(patience, |deadline| deadline.saturating_duration_since(Instant::now()));
            match self.running.wait_ready(socket, left.min(LOOK_AGAIN_AFTER)) {
                Ok(()) => return Ok(()),
                Err(Error::NotReady { id, socket, .. }) if left <= LOOK_AGAIN_AFTER => {
                    return Err(self.request.locate(Error::NotReady { id, socket, waited: patience }));
                }
                Err(Error::NotReady { .. }) => (),
                Err(error) => return Err(self.request.locate(error)),
            }
            check_no_signal(signals, BEFORE)?;
        }
    }

    /// What stdout is told of a VMM that runs on.
    fn announcement(&self) -> String {
        match self.attachment {
            Attachment::Daemonized => format!("{} {}\n", self.request.id(), self.running.pid()),
            _ => format!("{}\n", self.request.id()),
        }
    }
}

/// Stops and removes what was started, after a failure that is told in any case.
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
