//! The VMMs that one `run` has started: all of them or none.

use std::time::{Duration, Instant};

use stockade::spec::JailPath;
use stockade::{Error, Jail, Prepared, Running, Streams, TeardownOptions, teardown_all};
use stockade_syscalls::signals::SignalFd;

use super::multiplex::Prefixed;
use super::request::Wish;
use super::service_manager;
use super::supervise::Attended;
use super::vmm_output::Shown;
use crate::errors::hints;
use crate::flags::run::RunArgs;
use crate::terminal::output::{Failure, go_on, print, tell_left};
use crate::terminal::pty::Relay;
use crate::terminal::signals::demand_none;
use crate::terminal::width;

/// How soon a signal is heeded while a VMM gets ready.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What a signal that comes early keeps from coming about.
const BEFORE: &str = "all was ready";

/// Who has the VMM after its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeping {
    /// This command, until its end.
    Attached,
    /// Its monitor.
    Detached,
    /// Nobody: it is cut loose.
    Loose,
}

impl Keeping {
    fn of(args: &RunArgs, wish: &Wish<RunArgs>) -> Self {
        match (args.detach, wish.spec.daemonize) {
            (true, _) => Self::Detached,
            (false, true) => Self::Loose,
            (false, false) => Self::Attached,
        }
    }
}

/// A VMM that was started.
struct Member<'w> {
    wish: &'w Wish<RunArgs>,
    keeping: Keeping,
    running: Running,
    /// What it writes, if it has not our streams themselves.
    output: Option<Shown>,
    /// Where it is to accept connections, if that is waited for.
    socket: Option<JailPath>,
}

/// VMMs that were started, and may not be ready yet.
pub(crate) struct Crew<'w>(Vec<Member<'w>>);

/// VMMs that are ready.
pub(crate) struct Ready<'w>(Vec<Member<'w>>);

impl<'w> Crew<'w> {
    /// Starts the VMMs of jails that were prepared for these wishes. If one fails, all jails are removed.
    pub(crate) fn launch(wishes: &'w [Wish<RunArgs>], prepared: Vec<Prepared>) -> Result<Self, Failure> {
        let widest = wishes.iter().map(|wish| width::of(wish.id().as_str())).max();
        // One VMM has the terminal for itself.
        let width = widest.filter(|_| wishes.len() > 1);
        let mut crew = Self(Vec::new());
        for (wish, prepared) in wishes.iter().zip(prepared) {
            match Member::launch(wish, prepared, width) {
                Ok(member) => crew.0.push(member),
                Err(failure) => {
                    dissolve(crew.0);
                    return Err(wish.locate(failure));
                }
            }
        }
        Ok(crew)
    }

    /// Waits for those that are to be ready before anybody is told of them. If one fails, all jails are removed.
    pub(crate) fn ready(mut self, signals: &SignalFd) -> Result<Ready<'w>, Failure> {
        match self.0.iter_mut().try_for_each(|member| member.wait_ready(signals)) {
            Ok(()) => Ok(Ready(self.0)),
            Err(failure) => {
                dissolve(self.0);
                Err(failure)
            }
        }
    }
}

impl<'w> Ready<'w> {
    /// Tells of all, and lets those go that run on without this command; the others are left to attend to.
    /// If one cannot be let go, all jails are removed.
    pub(crate) fn let_go(mut self) -> Result<Attended<'w>, Failure> {
        let mut detached = self.0.iter_mut().filter(|member| member.keeping == Keeping::Detached);
        let left =
            detached.try_for_each(|member| member.running.leave().map_err(|error| member.wish.locate(error)));
        if let Err(failure) = left {
            dissolve(self.0);
            return Err(failure);
        }
        let loose = self.0.iter().filter(|member| member.keeping != Keeping::Attached);
        let words: String = loose.map(Member::announcement).collect();
        match &self.0[..] {
            [only] if only.keeping != Keeping::Attached => service_manager::ready_as(only.running.pid()),
            _ => service_manager::ready(),
        }
        let mut attended = Attended::default();
        // The others, dropped, run on.
        for member in self.0.into_iter().filter(|member| member.keeping == Keeping::Attached) {
            attended.add(member.wish, member.running, member.output);
        }
        go_on(print(&words)).map(|()| attended)
    }
}

impl<'w> Member<'w> {
    fn launch(wish: &'w Wish<RunArgs>, prepared: Prepared, width: Option<usize>) -> Result<Self, Failure> {
        let args = &wish.asked.args.own;
        let keeping = Keeping::of(args, wish);
        let (log_bytes, socket) = (args.ready.log_bytes()?, args.ready.socket(&wish.spec)?);
        let (running, output) = match (keeping, width) {
            (Keeping::Detached, _) => (prepared.launch_watched(log_bytes), None),
            (Keeping::Attached, Some(width)) => {
                let (streams, output) = Prefixed::new(wish.id(), width)?;
                (prepared.launch(streams), Some(Shown::Prefixed(output)))
            }
            (Keeping::Attached, None) => {
                let (relay, streams) = Relay::new()?;
                (prepared.launch(streams), relay.map(Shown::Relayed))
            }
            // On `/dev/null` before it runs.
            (Keeping::Loose, _) => (prepared.launch(Streams::default()), None),
        };
        let running = running.map_err(|error| hints::not_started(&error, &wish.spec))?;
        Ok(Self { wish, keeping, running, output, socket })
    }

    /// Waits until the VMM accepts connections, if it is to. A signal that comes before ends the wait.
    fn wait_ready(&mut self, signals: &SignalFd) -> Result<(), Failure> {
        let Some(socket) = &self.socket else {
            // One that is attended to is asked to end as at any other time.
            let attended = self.keeping == Keeping::Attached;
            return if attended { Ok(()) } else { demand_none(signals, BEFORE) };
        };
        let patience = self.wish.asked.args.own.ready.patience();
        let deadline = Instant::now().checked_add(patience);
        loop {
            if let Some(relay) = self.output.as_mut().and_then(Shown::relay_mut) {
                relay.turn();
            }
            let left =
                deadline.map_or(patience, |deadline| deadline.saturating_duration_since(Instant::now()));
            match self.running.wait_ready(socket, left.min(LOOK_AGAIN_AFTER)) {
                Ok(()) => return Ok(()),
                Err(Error::NotReady { id, socket, .. }) if left <= LOOK_AGAIN_AFTER => {
                    return Err(self.wish.locate(Error::NotReady { id, socket, waited: patience }));
                }
                Err(Error::NotReady { .. }) => (),
                Err(error) => return Err(self.wish.locate(error)),
            }
            demand_none(signals, BEFORE)?;
        }
    }

    /// What stdout is told of a VMM that runs on.
    fn announcement(&self) -> String {
        match self.keeping {
            Keeping::Loose => format!("{} {}\n", self.wish.id(), self.running.pid()),
            _ => format!("{}\n", self.wish.id()),
        }
    }
}

/// Stops and removes what was started, after a failure that is told in any case.
fn dissolve(members: Vec<Member<'_>>) {
    let grace = members.iter().map(|member| member.wish.asked.args.own.grace()).max();
    let mut outputs = Vec::new();
    let jails = members.into_iter().map(|member| {
        outputs.extend(member.output);
        Jail::Running(member.running)
    });
    let reports = teardown_all(jails.collect(), TeardownOptions { grace, ..TeardownOptions::default() });
    reports.into_iter().flatten().for_each(|report| tell_left(&report));
    outputs.into_iter().for_each(Shown::finish);
}
