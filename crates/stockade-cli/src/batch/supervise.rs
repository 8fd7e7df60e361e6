//! Waiting for VMMs, and what asks them to end meanwhile.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;
use stockade::spec::JailId;
use stockade::{ExitStatus, Jail, Receipt, Running, TeardownOptions, teardown_all};
use stockade_syscalls::signals::SignalFd;

use super::request::JailRequest;
use super::service_manager;
use super::vmm_output::VmmOutput;
use crate::flags::run::RunArgs;
use crate::terminal::output::{Code, Failure, error, info, report_leftovers};
use crate::terminal::poll::wait_until;
use crate::terminal::pty::Relay;

/// How far a VMM has been asked to end.
#[derive(Clone, Copy)]
enum Stop {
    Never,
    /// Asked, and to be killed at that time; one beyond reckoning never comes.
    Requested {
        kill_at: Option<Instant>,
    },
    Killed,
}

struct SupervisedVmm<'w> {
    request: &'w JailRequest<RunArgs>,
    running: Running,
    output: Option<VmmOutput>,
    stop: Stop,
}

/// VMMs that are waited for.
#[derive(Default)]
pub(crate) struct Supervisor<'w> {
    vmms: Vec<SupervisedVmm<'w>>,
    many: bool,
    /// Whether the service manager knows that this is coming to its end.
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

    /// Waits for the VMMs' ends, and removes the jail of each as it ends. The first signal asks all to end, the
    /// second kills them, and so does the end of the grace period. The exit code is that of the first VMM that
    /// failed.
    pub(crate) fn supervise(mut self, signals: &SignalFd) -> Result<ExitCode, Failure> {
        if self.vmms.is_empty() {
            // All run on without this command.
            return Ok(ExitCode::SUCCESS);
        }
        let mut first = 0;
        loop {
            self.relays().for_each(Relay::step);
            let ended = self.take_ended()?;
            let over = self.vmms.is_empty();
            if over {
                self.begin_stopping();
            }
            let code = tear_down(ended, self.many);
            first = if first == 0 { code } else { first };
            if over {
                return Ok(ExitCode::from(first));
            }
            self.wait(signals)?;
            self.vmms.iter_mut().filter(|vmm| vmm.is_late()).try_for_each(SupervisedVmm::escalate)?;
            while let Ok(Some(arrived)) = signals.take_arrived() {
                if self.relays().any(|relay| relay.is_key(arrived)) {
                    continue;
                }
                let is_asked_anew = self.begin_stopping();
                self.vmms.iter_mut().try_for_each(SupervisedVmm::escalate)?;
                if is_asked_anew {
                    self.report_stop_requested();
                }
            }
        }
    }

    /// Those of the VMMs that have a terminal.
    fn relays(&mut self) -> impl Iterator<Item = &mut Relay> {
        self.vmms.iter_mut().filter_map(|vmm| vmm.output.as_mut()?.relay_mut())
    }

    /// Whether this is the first that is told of it.
    fn begin_stopping(&mut self) -> bool {
        let is_first = !std::mem::replace(&mut self.stopping, true);
        if is_first {
            service_manager::stopping();
        }
        is_first
    }

    /// Tells whoever waits at a terminal for what, since a VMM may take its time.
    fn report_stop_requested(&self) {
        if std::io::stderr().is_terminal() {
            info(&match &self.vmms[..] {
                [only] => format!("asked {} to end; once more kills it", only.request.id()),
                all => format!("asked {} VMMs to end; once more kills them", all.len()),
            });
        }
    }

    fn take_ended(&mut self) -> Result<Vec<SupervisedVmm<'w>>, Failure> {
        let mut ended = Vec::new();
        let mut at = 0;
        while at < self.vmms.len() {
            if self.vmms[at].running.wait_timeout(Duration::ZERO)?.is_some() {
                ended.push(self.vmms.remove(at));
            } else {
                at += 1;
            }
        }
        Ok(ended)
    }

    /// Waits until a VMM ends, a signal comes, something is typed, or the next one's grace is over.
    fn wait(&self, signals: &SignalFd) -> Result<(), Failure> {
        let relays = || self.vmms.iter().filter_map(|vmm| vmm.output.as_ref()?.relay());
        let kills = self.vmms.iter().filter_map(SupervisedVmm::kill_at);
        let looks = relays().filter_map(Relay::patience).filter_map(|time| Instant::now().checked_add(time));
        let next = kills.chain(looks).min();
        let fds = self.vmms.iter().map(|vmm| vmm.running.as_fd()).chain([signals.as_fd()]);
        let mut waiting: Vec<PollFd<'_>> =
            fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        waiting.extend(relays().flat_map(Relay::waits_for));
        let waited = wait_until(&mut waiting, next);
        waited.map(drop).map_err(|e| Failure::new(format!("failed to wait for the VMM: {e}")))
    }
}

impl SupervisedVmm<'_> {
    fn kill_at(&self) -> Option<Instant> {
        if let Stop::Requested { kill_at } = self.stop { kill_at } else { None }
    }

    fn is_late(&self) -> bool {
        self.kill_at().is_some_and(|kill_at| kill_at <= Instant::now())
    }

    fn escalate(&mut self) -> Result<(), Failure> {
        self.stop = match self.stop {
            Stop::Never => {
                self.running.signal(Signal::TERM)?;
                Stop::Requested {
                    kill_at: Instant::now().checked_add(self.request.description.args.own.grace()),
                }
            }
            Stop::Requested { .. } | Stop::Killed => {
                self.running.signal(Signal::KILL)?;
                Stop::Killed
            }
        };
        Ok(())
    }
}

/// Tells of an end that nobody has asked for, where the exit code alone does not.
fn report_exit(id: &JailId, ended: ExitStatus, many: bool, receipt: &Receipt) {
    let why = if receipt.ran_out_of_memory() { ": the jail's limit of memory was reached" } else { "" };
    match ended {
        ExitStatus::Exited(0) | ExitStatus::Unknown => (),
        ExitStatus::Exited(_) if !many && why.is_empty() => (),
        _ => error(&format!("the VMM of jail {id} has ended: {ended}{why}")),
    }
}

/// Removes the jails of VMMs that have ended, together: most of that is waiting. A VMM's exit code is ours, unless
/// something of its jail is left; of several it is that of the first that failed.
fn tear_down(vmms: Vec<SupervisedVmm<'_>>, many: bool) -> u8 {
    let mut jails = Vec::new();
    let mut ends = Vec::new();
    for SupervisedVmm { request, mut running, mut output, stop } in vmms {
        if let Some(relay) = output.as_mut().and_then(VmmOutput::relay_mut) {
            relay.close();
        }
        let ended = running.wait().unwrap_or(ExitStatus::Unknown);
        if matches!(stop, Stop::Never) {
            report_exit(request.id(), ended, many, running.receipt());
        }
        jails.push(Jail::Running(running));
        ends.push((request, ended, output));
    }
    let mut first = 0;
    let reports = teardown_all(jails, TeardownOptions::default());
    for ((request, ended, output), report) in ends.into_iter().zip(reports) {
        let clean = match report {
            Ok(report) => {
                report_leftovers(&report);
                report.is_clean()
            }
            // The others are waited for all the same.
            Err(error) => {
                request.locate(error).report();
                false
            }
        };
        if let Some(output) = output {
            output.finish();
        }
        let code = ended.shell_code();
        let code = if code == 0 && !clean { Code::OwnFailure as u8 } else { code };
        first = if first == 0 { code } else { first };
    }
    first
}
