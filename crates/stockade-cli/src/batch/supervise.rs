//! Waiting for VMMs, and what asks them to end meanwhile.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use stockade::spec::JailId;
use stockade::{Ended, Jail, Receipt, Running, TeardownOptions, teardown_all};
use stockade_syscalls::signals::SignalFd;

use super::request::Wish;
use super::service_manager;
use super::vmm_output::Shown;
use crate::flags::run::RunArgs;
use crate::terminal::output::{Code, Failure, complain, note, tell_left};
use crate::terminal::pty::Relay;

/// How far a VMM has been asked to end.
#[derive(Clone, Copy)]
enum Stop {
    Never,
    /// Asked, and to be killed at that time; one beyond reckoning never comes.
    Asked {
        kill_at: Option<Instant>,
    },
    Killed,
}

struct Member<'w> {
    wish: &'w Wish<RunArgs>,
    running: Running,
    output: Option<Shown>,
    stop: Stop,
}

/// VMMs that are waited for.
#[derive(Default)]
pub(crate) struct Attended<'w> {
    members: Vec<Member<'w>>,
    many: bool,
    /// Whether the service manager knows that this is coming to its end.
    stopping: bool,
}

impl<'w> Attended<'w> {
    pub(crate) fn add(&mut self, wish: &'w Wish<RunArgs>, running: Running, output: Option<Shown>) {
        self.many |= matches!(output, Some(Shown::Prefixed(_)));
        self.members.push(Member { wish, running, output, stop: Stop::Never });
    }

    /// Waits for the VMMs' ends, and removes the jail of each as it ends. The first signal asks all to end, the
    /// second kills them, and so does the end of the grace period. The exit code is that of the first VMM that
    /// failed.
    pub(crate) fn attend(mut self, signals: &SignalFd) -> Result<ExitCode, Failure> {
        if self.members.is_empty() {
            // All run on without this command.
            return Ok(ExitCode::SUCCESS);
        }
        let mut first = 0;
        loop {
            self.relays().for_each(Relay::turn);
            let ended = self.take_ended()?;
            let over = self.members.is_empty();
            if over {
                self.tell_stopping();
            }
            let code = conclude(ended, self.many);
            first = if first == 0 { code } else { first };
            if over {
                return Ok(ExitCode::from(first));
            }
            self.wait(signals)?;
            self.members.iter_mut().filter(|member| member.is_late()).try_for_each(Member::further)?;
            while let Ok(Some(arrived)) = signals.take_arrived() {
                if self.relays().any(|relay| relay.is_key(arrived)) {
                    continue;
                }
                let is_asked_anew = self.tell_stopping();
                self.members.iter_mut().try_for_each(Member::further)?;
                if is_asked_anew {
                    self.tell_asked();
                }
            }
        }
    }

    /// Those of the VMMs that have a terminal.
    fn relays(&mut self) -> impl Iterator<Item = &mut Relay> {
        self.members.iter_mut().filter_map(|member| member.output.as_mut()?.relay_mut())
    }

    /// Whether this is the first that is told of it.
    fn tell_stopping(&mut self) -> bool {
        let is_first = !std::mem::replace(&mut self.stopping, true);
        if is_first {
            service_manager::stopping();
        }
        is_first
    }

    /// Tells whoever waits at a terminal for what, since a VMM may take its time.
    fn tell_asked(&self) {
        if std::io::stderr().is_terminal() {
            note(&match &self.members[..] {
                [only] => format!("asked {} to end; once more kills it", only.wish.id()),
                all => format!("asked {} VMMs to end; once more kills them", all.len()),
            });
        }
    }

    fn take_ended(&mut self) -> Result<Vec<Member<'w>>, Failure> {
        let mut ended = Vec::new();
        let mut at = 0;
        while at < self.members.len() {
            if self.members[at].running.wait_timeout(Duration::ZERO)?.is_some() {
                ended.push(self.members.remove(at));
            } else {
                at += 1;
            }
        }
        Ok(ended)
    }

    /// Waits until a VMM ends, a signal comes, something is typed, or the next one's grace is over.
    fn wait(&self, signals: &SignalFd) -> Result<(), Failure> {
        let relays = || self.members.iter().filter_map(|member| member.output.as_ref()?.relay());
        let kills = self.members.iter().filter_map(Member::kill_at);
        let kills = kills.map(|next| next.saturating_duration_since(Instant::now()));
        let next = kills.chain(relays().filter_map(Relay::patience)).min();
        let left = next.and_then(|left| Timespec::try_from(left).ok());
        let fds = self.members.iter().map(|member| member.running.as_fd()).chain([signals.as_fd()]);
        let mut waiting: Vec<PollFd<'_>> =
            fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        waiting.extend(relays().flat_map(Relay::waits_for));
        match poll(&mut waiting, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(Failure::new(format!("failed to wait for the VMM: {e}"))),
        }
    }
}

impl Member<'_> {
    fn kill_at(&self) -> Option<Instant> {
        if let Stop::Asked { kill_at } = self.stop { kill_at } else { None }
    }

    fn is_late(&self) -> bool {
        self.kill_at().is_some_and(|kill_at| kill_at <= Instant::now())
    }

    fn further(&mut self) -> Result<(), Failure> {
        self.stop = match self.stop {
            Stop::Never => {
                self.running.signal(Signal::TERM)?;
                Stop::Asked { kill_at: Instant::now().checked_add(self.wish.asked.args.own.grace()) }
            }
            Stop::Asked { .. } | Stop::Killed => {
                self.running.signal(Signal::KILL)?;
                Stop::Killed
            }
        };
        Ok(())
    }
}

/// Tells of an end that nobody has asked for, where the exit code alone does not.
fn tell_end(id: &JailId, ended: Ended, many: bool, receipt: &Receipt) {
    let why = if receipt.ran_out_of_memory() { ": the jail's limit of memory was reached" } else { "" };
    match ended {
        Ended::Exited(0) | Ended::Unknown => (),
        Ended::Exited(_) if !many && why.is_empty() => (),
        _ => complain(&format!("the VMM of jail {id} has ended: {ended}{why}")),
    }
}

/// Removes the jails of VMMs that have ended, together: most of that is waiting. A VMM's exit code is ours, unless
/// something of its jail is left; of several it is that of the first that failed.
fn conclude(members: Vec<Member<'_>>, many: bool) -> u8 {
    let mut jails = Vec::new();
    let mut ends = Vec::new();
    for Member { wish, mut running, mut output, stop } in members {
        if let Some(relay) = output.as_mut().and_then(Shown::relay_mut) {
            relay.close();
        }
        let ended = running.wait().unwrap_or(Ended::Unknown);
        if matches!(stop, Stop::Never) {
            tell_end(wish.id(), ended, many, running.receipt());
        }
        jails.push(Jail::Running(running));
        ends.push((wish, ended, output));
    }
    let mut first = 0;
    let reports = teardown_all(jails, TeardownOptions::default());
    for ((wish, ended, output), report) in ends.into_iter().zip(reports) {
        let clean = match report {
            Ok(report) => {
                tell_left(&report);
                report.is_clean()
            }
            // The others are waited for all the same.
            Err(error) => {
                wish.locate(error).tell();
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
