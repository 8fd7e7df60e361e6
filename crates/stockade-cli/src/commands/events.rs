//! `stockade events`: prints changes of jails as they happen.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use rustix::event::{PollFd, PollFlags};
use stockade::spec::JailId;
use stockade::spec::reason;
use stockade::{Event, EventKind, Events};
use stockade_syscalls::poll::wait_until;
use stockade_syscalls::signals::SignalFd;

use crate::flags::duration::duration;
use crate::flags::state::StateArgs;
use crate::terminal::output::{Code, Failure, escape_control, print, print_json_line, require_root_to_look};
use crate::terminal::signals::stop_signals;
use crate::terminal::time::{timestamp, until};

/// Arguments of `events`.
#[derive(Debug, Args)]
#[command(after_help = "The exit code is 0 after Ctrl-C, after SIGTERM and after the event of --until.

Examples:
  stockade events --json
  stockade events --all --until removed vm-1")]
pub(crate) struct EventsArgs {
    /// IDs of the jails to watch, existing or not (default: all jails).
    #[arg(value_name = "ID")]
    ids: Vec<JailId>,
    /// Begin with the past events of existing jails.
    #[arg(long)]
    all: bool,
    /// Exit when this event has happened to each named jail, or to any jail if none is named.
    #[arg(long, value_name = "EVENT")]
    until: Option<Until>,
    /// Exit after this time, with exit code 124.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    state: StateArgs,
}

/// The events that `--until` accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Until {
    Created,
    Started,
    Exited,
    Abandoned,
    Corrupt,
    Removed,
}

impl Until {
    fn is(self, kind: &EventKind) -> bool {
        match kind {
            EventKind::Created => self == Self::Created,
            EventKind::Started { .. } => self == Self::Started,
            EventKind::Exited { .. } => self == Self::Exited,
            EventKind::Abandoned => self == Self::Abandoned,
            EventKind::Removed => self == Self::Removed,
            EventKind::Corrupt { .. } => self == Self::Corrupt,
            EventKind::Missed => false,
        }
    }
}

pub(crate) fn events(args: &EventsArgs) -> Result<ExitCode, Failure> {
    require_root_to_look("events")?;
    let store = args.state.store()?;
    let deadline = until(args.timeout);
    let signals = stop_signals()?;
    let mut events = if args.all { store.events_from_the_start()? } else { store.events()? };
    let mut awaited: BTreeSet<&JailId> = args.ids.iter().collect();
    loop {
        let event = match next(&mut events, &signals, deadline)? {
            Next::Event(event) => event,
            Next::Stop => return Ok(ExitCode::SUCCESS),
            Next::TimedOut => return Ok(Code::TimedOut.into()),
        };
        let asked_for = |id: &JailId| args.ids.is_empty() || args.ids.contains(id);
        if !event.id.as_ref().is_none_or(asked_for) {
            continue;
        }
        let printed = if args.json { print_json_line(&event) } else { print(&line(&event)) };
        printed?;
        if args.until.is_some_and(|until| until.is(&event.kind)) {
            event.id.as_ref().map(|id| awaited.remove(id));
            if awaited.is_empty() {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
}

enum Next {
    Event(Event),
    /// A signal asks the command to exit.
    Stop,
    TimedOut,
}

fn next(events: &mut Events, signals: &SignalFd, deadline: Option<Instant>) -> Result<Next, Failure> {
    loop {
        let now = Instant::now();
        if let Some(event) = events.next(Some(now))? {
            return Ok(Next::Event(event));
        }
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Ok(Next::TimedOut);
        }
        let mut waiting =
            [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        wait_until(&mut waiting, deadline)
            .map_err(|e| Failure::new(format!("cannot wait for events: {}", reason(&e))))?;
        if let Ok(Some(_)) = signals.take() {
            return Ok(Next::Stop);
        }
    }
}

fn line(event: &Event) -> String {
    let time = timestamp(Duration::from_millis(event.time_ms));
    let id = event.id.as_ref().map_or("-", JailId::as_str);
    format!("{time} {id} {}\n", escape_control(&event.to_string()))
}
