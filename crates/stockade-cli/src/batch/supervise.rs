//! Waits for VMMs and stops them on a signal.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use stockade::spec::JailId;
use stockade::spec::reason;
use stockade::{ExitStatus, Jail, Known, Running, TeardownOptions, Unheeded, teardown_all};
use stockade_syscalls::poll::wait_until;
use stockade_syscalls::signals::SignalFd;

use super::orphans::Orphans;
use super::request::JailRequest;
use super::service_manager;
use super::stop::report_unheeded;
use super::vmm_output::VmmOutput;
use crate::flags::run::RunArgs;
use crate::terminal::output::{Code, Failure, error, info, report_leftovers};
use crate::terminal::pty::Relay;

/// The time that a killed VMM has to exit.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// How far a VMM's stop has come.
#[derive(Clone, Copy)]
enum Stop {
    Never,
    Requested {
        /// `None` if the grace period is longer than an [`Instant`] can hold.
        kill_at: Option<Instant>,
    },
    Killed {
        /// When the wait for its exit ends.
        give_up_at: Instant,
    },
    /// It was killed and has not exited in time.
    GivenUp,
}

struct SupervisedVmm<'w> {
    request: &'w JailRequest<RunArgs>,
    running: Running,
    output: Option<VmmOutput>,
    stop: Stop,
}

/// Waits for attached VMMs.
#[derive(Default)]
pub(crate) struct Supervisor<'w> {
    vmms: Vec<SupervisedVmm<'w>>,
    many: bool,
    /// Whether the service manager was notified of the stop.
    stopping: bool,
}

impl<'w> Supervisor<'w> {
    pub(crate) fn add(
        &mut self,
        request: &'w JailRequest<RunArgs>,
        running: Running,
        output: Option<VmmOutput>,
    ) {
        self.many |= matches!(output, Some(VmmOutput::Prefixed(_)));
        self.vmms.push(SupervisedVmm { request, running, output, stop: Stop::Never });
    }

    /// Waits until all VMMs have exited, and removes the jail of each as it exits.
    ///
    /// The first signal asks all VMMs to exit. The second signal kills them, and so does the end of the grace period.
    /// Returns the exit code of the first VMM that failed.
    pub(crate) fn supervise(mut self, signals: &SignalFd) -> Result<ExitCode, Failure> {
        if self.vmms.is_empty() {
            // All VMMs outlive this command.
            return Ok(ExitCode::SUCCESS);
        }
        let orphans = Orphans::watch()?;
        let mut first = 0;
        loop {
            self.relays().for_each(Relay::step);
            let exited = self.take_exited()?;
            orphans.reap(|pid| self.is_own(pid));
            let is_last = self.vmms.is_empty();
            if is_last {
                self.begin_stopping();
            }
            let code = tear_down(exited, self.many);
            first = if first == 0 { code } else { first };
            if is_last {
                return Ok(ExitCode::from(first));
            }
            self.wait(signals, &orphans)?;
            self.vmms.iter_mut().try_for_each(SupervisedVmm::go_on)?;
            while let Ok(Some(arrived)) = signals.take_arrived() {
                if self.relays().any(|relay| relay.is_key(arrived)) {
                    continue;
                }
                let is_first = self.begin_stopping();
                self.vmms.iter_mut().try_for_each(SupervisedVmm::escalate)?;
                if is_first {
                    self.report_stop_requested();
                }
            }
        }
    }

    fn relays(&mut self) -> impl Iterator<Item = &mut Relay> {
        self.vmms.iter_mut().filter_map(|vmm| vmm.output.as_mut()?.relay_mut())
    }

    /// Whether this command waits for the process with this pid.
    fn is_own(&self, pid: i32) -> bool {
        let carrier =
            |vmm: &SupervisedVmm<'_>| vmm.output.as_ref().and_then(|output| output.relay()?.carrier());
        self.vmms.iter().any(|vmm| vmm.running.pid() == pid || carrier(vmm) == Some(pid))
    }

    /// Notifies the service manager once. Returns true if this was the first call.
    fn begin_stopping(&mut self) -> bool {
        let is_first = !std::mem::replace(&mut self.stopping, true);
        if is_first {
            service_manager::stopping();
        }
        is_first
    }

    /// Explains the wait to an operator at a terminal, because a VMM may take long to exit.
    fn report_stop_requested(&self) {
        let asked = |vmm: &&SupervisedVmm<'_>| matches!(vmm.stop, Stop::Requested { .. });
        let asked: Vec<_> = self.vmms.iter().filter(asked).collect();
        if std::io::stderr().is_terminal() && !asked.is_empty() {
            info(&match &asked[..] {
                [only] => format!("asked jail '{}' to stop; repeat to kill it", only.request.id()),
                all => format!("asked {} jails to stop; repeat to kill them", all.len()),
            });
        }
    }

    fn take_exited(&mut self) -> Result<Vec<SupervisedVmm<'w>>, Failure> {
        let mut exited = Vec::new();
        let mut at = 0;
        while at < self.vmms.len() {
            let vmm = &mut self.vmms[at];
            if vmm.running.wait_timeout(Duration::ZERO)?.is_some() || matches!(vmm.stop, Stop::GivenUp) {
                exited.push(self.vmms.remove(at));
            } else {
                at += 1;
            }
        }
        Ok(exited)
    }

    /// Waits until a VMM exits, a signal arrives, a key is typed, or a grace period expires.
    fn wait(&self, signals: &SignalFd, orphans: &Orphans) -> Result<(), Failure> {
        let relays = || self.vmms.iter().filter_map(|vmm| vmm.output.as_ref()?.relay());
        let kills = self.vmms.iter().filter_map(SupervisedVmm::next_at);
        let wakes =
            relays().filter_map(Relay::wait_limit).filter_map(|time| Instant::now().checked_add(time));
        let next = kills.chain(wakes).min();
        let fds = self.vmms.iter().map(|vmm| vmm.running.as_fd()).chain([signals.as_fd()]);
        let mut waiting: Vec<PollFd<'_>> =
            fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        waiting.extend(orphans.waits_for());
        waiting.extend(relays().flat_map(Relay::waits_for));
        let waited = wait_until(&mut waiting, next);
        waited.map(drop).map_err(|e| Failure::new(format!("cannot wait for the VMM: {}", reason(&e))))
    }
}

impl SupervisedVmm<'_> {
    /// When the stop goes on by itself.
    fn next_at(&self) -> Option<Instant> {
        match self.stop {
            Stop::Never | Stop::GivenUp => None,
            Stop::Requested { kill_at } => kill_at,
            Stop::Killed { give_up_at } => Some(give_up_at),
        }
    }

    /// Kills a VMM at the end of its grace period, and gives up one that was killed and does not exit.
    fn go_on(&mut self) -> Result<(), Failure> {
        if self.next_at().is_none_or(|next| next > Instant::now()) {
            return Ok(());
        }
        match self.stop {
            Stop::Never | Stop::Requested { .. } => self.escalate(),
            Stop::Killed { .. } | Stop::GivenUp => {
                self.running.give_up();
                self.stop = Stop::GivenUp;
                Ok(())
            }
        }
    }

    fn escalate(&mut self) -> Result<(), Failure> {
        self.stop = match self.stop {
            Stop::Never => {
                let unheeded = self.running.ask_to_exit()?;
                if let Some(unheeded) = unheeded {
                    report_unheeded(self.running.receipt(), unheeded);
                }
                match unheeded {
                    Some(Unheeded::Dropped) => self.kill()?,
                    Some(Unheeded::Ignored) | None => Stop::Requested {
                        kill_at: Instant::now().checked_add(self.request.description.args.own.grace()),
                    },
                }
            }
            Stop::Requested { .. } => self.kill()?,
            Stop::Killed { .. } | Stop::GivenUp => {
                self.running.kill()?;
                self.stop
            }
        };
        Ok(())
    }

    fn kill(&self) -> Result<Stop, Failure> {
        self.running.kill()?;
        Ok(Stop::Killed { give_up_at: Instant::now() + KILL_TIMEOUT })
    }
}

/// Prints an unrequested exit that this command's exit code does not show.
fn report_exit(id: &JailId, status: ExitStatus, many: bool, oom_kills: Option<&Known<u64>>) {
    let killed = oom_kills.and_then(Known::fact).is_some_and(|kills| *kills > 0);
    match status {
        ExitStatus::Exited(0) | ExitStatus::Unknown if !killed => (),
        ExitStatus::Exited(_) if !many && !killed => (),
        _ => error(&format!("the VMM of jail '{id}' has exited: {}", status.describe(oom_kills))),
    }
}

/// Removes the jails of exited VMMs, all at once because a removal mostly waits.
///
/// Returns the exit code of the first VMM that failed. A jail that is not removed completely is a failure too.
fn tear_down(vmms: Vec<SupervisedVmm<'_>>, many: bool) -> u8 {
    let mut jails = Vec::new();
    let mut exits = Vec::new();
    for SupervisedVmm { request, mut running, mut output, stop } in vmms {
        if let Some(relay) = output.as_mut().and_then(VmmOutput::relay_mut) {
            relay.close();
        }
        // One that was given up has none; the removal reports it.
        let status = running.wait_timeout(Duration::ZERO).ok().flatten().unwrap_or(ExitStatus::Unknown);
        if matches!(stop, Stop::Never) {
            report_exit(request.id(), status, many, running.oom_kills().as_ref());
        }
        jails.push(Jail::Running(running));
        exits.push((request, status, output));
    }
    let mut first = 0;
    let reports = teardown_all(jails, TeardownOptions::default());
    for ((request, status, output), report) in exits.into_iter().zip(reports) {
        let clean = match report {
            Ok(report) => {
                report_leftovers(&report);
                report.is_clean()
            }
            // Not returned: the other VMMs still have to be waited for.
            Err(error) => {
                request.locate(error).report();
                false
            }
        };
        if let Some(output) = output {
            output.finish();
        }
        let code = status.shell_code();
        let code = if code == 0 && !clean { Code::OwnFailure as u8 } else { code };
        first = if first == 0 { code } else { first };
    }
    first
}
