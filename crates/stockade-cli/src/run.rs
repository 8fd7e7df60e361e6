//! `stockade run`: prepare, place, launch, wait, tear down.

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use stockade::spec::JailSpec;
use stockade::{Ended, Prepared, Report, Running, Store, Streams};
use stockade_syscalls::signals::{SignalFd, is_ignored};

use crate::advice;
use crate::args::{JailArgs, PLACE_FLAG, StateArgs};
use crate::host_setup;
use crate::output::{Code, Failure, note, print, require_root};
use crate::placements::not_placed;
use crate::progress::Bar;

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  stockade run --id vm-1 --exec-file /usr/bin/busybox --place disk.img -- sh -c 'ls -l /'")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) jail: JailArgs,
    #[command(flatten)]
    pub(crate) state: StateArgs,
    /// Time between Ctrl-C or SIGTERM and the VMM's being killed.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub(crate) grace: u64,
}

pub(crate) fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    let spec = args.jail.spec()?;
    require_root("run")?;
    host_setup::on_the_side();
    let store = args.state.store()?;
    // From here on a signal waits until the VMM can be stopped and the jail be removed.
    let signals = stop_signals()?;
    let prepared = prepare(&store, &spec, &args.jail)?;
    let launched = prepared.launch(Streams::default());
    let mut running = launched.map_err(|error| Failure::new(advice::not_started(&error, &spec)))?;
    if spec.daemonize {
        return print(&format!("{} {}\n", spec.id, running.pid())).map(|()| ExitCode::SUCCESS);
    }
    let ended = watch(&mut running, &signals, Duration::from_secs(args.grace))?;
    let report = running.teardown()?;
    Ok(finish(ended, &report))
}

/// Makes the jail and places into it what the flags say.
pub(crate) fn prepare(store: &Store, spec: &JailSpec, flags: &JailArgs) -> Result<Prepared, Failure> {
    let placements = flags.placements()?;
    if let Some(warning) = advice::warning(spec) {
        note(&warning);
    }
    let made = store.prepare(spec);
    let mut prepared = made.map_err(|error| Failure::new(advice::not_made(&error)))?;
    if let Some(report) = prepared.taken_over() {
        let many = report.removed.len();
        note(&format!(
            "took over jail {}, which was left by a crash, and removed {many} things of it",
            spec.id
        ));
    }
    for placement in placements {
        let source = placement.source().to_owned();
        let mut bar = Bar::new(&source);
        let placed = prepared.place_with_progress(placement, &mut |progress| bar.show(progress));
        placed.map_err(|error| not_placed(PLACE_FLAG, &source, &error))?;
    }
    Ok(prepared)
}

/// The signals that ask a command to end.
pub(crate) fn stop_signals() -> Result<SignalFd, Failure> {
    stop_signals_and(&[])
}

/// The same with further ones.
pub(crate) fn stop_signals_and(more: &[Signal]) -> Result<SignalFd, Failure> {
    let signals = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];
    // What the caller ignores stays ignored: nohup means it.
    let heeded = signals.into_iter().filter(|signal| !is_ignored(*signal));
    let heeded: Vec<Signal> = heeded.chain(more.iter().copied()).collect();
    SignalFd::block(&heeded).map_err(|e| Failure::new(format!("failed to block signals: {e}")))
}

/// How far the VMM has been asked to end.
#[derive(Clone, Copy)]
enum Stop {
    Never,
    /// Asked, and to be killed at that time; one beyond reckoning never comes.
    Asked {
        kill_at: Option<Instant>,
    },
    Killed,
}

/// Waits for the VMM's end. The first signal asks it to end, the second kills it, and so does the end of
/// the grace period.
fn watch(running: &mut Running, signals: &SignalFd, grace: Duration) -> Result<Ended, Failure> {
    let mut stop = Stop::Never;
    loop {
        if let Some(ended) = running.wait_timeout(Duration::ZERO)? {
            return Ok(ended);
        }
        let left = match stop {
            Stop::Asked { kill_at: Some(kill_at) } => {
                Timespec::try_from(kill_at.saturating_duration_since(Instant::now())).ok()
            }
            _ => None,
        };
        let mut waiting =
            [PollFd::from_borrowed_fd(running.as_fd(), PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        let expired = match poll(&mut waiting, left.as_ref()) {
            Ok(ready) => ready == 0,
            Err(Errno::INTR) => false,
            Err(e) => return Err(Failure::new(format!("failed to wait for the VMM: {e}"))),
        };
        if expired {
            stop = further(running, stop, grace)?;
        }
        while let Ok(Some(_)) = signals.take() {
            stop = further(running, stop, grace)?;
        }
    }
}

fn further(running: &Running, stop: Stop, grace: Duration) -> Result<Stop, Failure> {
    match stop {
        Stop::Never => {
            running.signal(Signal::TERM)?;
            Ok(Stop::Asked { kill_at: Instant::now().checked_add(grace) })
        }
        Stop::Asked { .. } | Stop::Killed => {
            running.signal(Signal::KILL)?;
            Ok(Stop::Killed)
        }
    }
}

/// Tells what could not be removed.
pub(crate) fn tell_left(report: &Report) {
    for left in &report.left {
        note(&format!("left: {}: {}", left.what, left.reason));
    }
}

/// The VMM's exit code is ours, unless something of the jail is left.
fn finish(ended: Ended, report: &Report) -> ExitCode {
    tell_left(report);
    if !report.is_clean() && ended == Ended::Exited(0) {
        return Code::Failed.into();
    }
    ExitCode::from(ended.shell_code())
}
