//! `stockade logs`: prints the log of a VMM.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use stockade::inspect::Inspection;
use stockade::spec::JailId;
use stockade::{JailState, Log, Output, Store};

use crate::flags::lookup::{find, no_such_jail};
use crate::flags::state::StateArgs;
use crate::terminal::escape::ShownOutput;
use crate::terminal::output::{Failure, info, require_root_to_look};

/// Arguments of `logs`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  stockade logs -f -n 20 vm-1")]
pub(crate) struct LogsArgs {
    /// ID of the jail, or a unique prefix of it.
    pub(crate) id: JailId,
    /// Keep printing new output until the VMM exits.
    #[arg(short, long)]
    follow: bool,
    /// Print control characters to a terminal as they are, not escaped.
    #[arg(long)]
    raw: bool,
    /// Begin with the last N lines of the log.
    #[arg(short = 'n', long, value_name = "N")]
    lines: Option<usize>,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}

pub(crate) fn logs(args: &LogsArgs) -> Result<ExitCode, Failure> {
    require_root_to_look("logs")?;
    let store = args.state.store()?;
    let id = find(&store, &args.id)?;
    let mut log = store.log(&id)?.ok_or_else(|| no_such_jail(&id))?;
    // A VMM that was not started yet may get a log.
    match store.output(&id)?.ok_or_else(|| no_such_jail(&id))? {
        Output::Log => (),
        Output::NotStarted if args.follow => (),
        other => return Err(no_log(&id, &other)),
    }
    let mut printer = Printer::new(args.raw);
    let mut empty = match args.lines {
        None => print_next(&mut log, &mut printer)?,
        Some(lines) => {
            let text = end_of(&mut log, lines)?;
            printer.write(last(&text, lines))?;
            text.is_empty()
        }
    };
    while args.follow && log.wait(None)? {
        empty &= print_next(&mut log, &mut printer)?;
    }
    printer.finish()?;
    // Lost output was written by the VMM.
    if empty && store.lost_output(&id) == 0 {
        match store.output(&id)? {
            // Removed while it was followed.
            None => (),
            Some(Output::Log) => info(&format!("the log of jail '{id}' is empty: {}", Output::Log)),
            Some(other) => return Err(no_log(&id, &other)),
        }
    }
    report_lost(&store, &id)?;
    Ok(ExitCode::SUCCESS)
}

/// The failure of a jail without a log, with its reason and the way to a log.
pub(crate) fn no_log(id: &JailId, output: &Output) -> Failure {
    let fix = match output {
        Output::NotStarted => format!("; start it with `stockade start {id}`"),
        Output::Foreground { .. } => "; use `run --detach` or `start` to keep a log".to_owned(),
        Output::Log | Output::Dropped | Output::Daemonized | Output::Elsewhere => String::new(),
    };
    Failure::new(format!("jail '{id}' has no log: {output}{fix}"))
}

/// Reports whether the log lacks output.
fn report_lost(store: &Store, id: &JailId) -> Result<(), Failure> {
    let lost = store.lost_output(id);
    if lost > 0 {
        let at = store.directory();
        info(&format!(
            "{lost} bytes of the output of jail '{id}' are lost: they could not be written; make room in '{at}'"
        ));
    }
    if let Some(pid) = store.inspect(id)?.and_then(|found| lost_monitor(&found)) {
        info(&format!(
            "the monitor of jail '{id}' (pid {pid}) was killed: later output and the exit status are lost"
        ));
    }
    Ok(())
}

/// The pid of the jail's monitor, if it has exited without recording an exit status.
fn lost_monitor(found: &Inspection) -> Option<i32> {
    let monitor = found.monitor.filter(|monitor| !monitor.alive)?;
    let is_here = matches!(found.state, JailState::Running | JailState::Exited);
    (is_here && found.ended.is_none()).then_some(monitor.pid)
}

/// Prints the output up to now; true if there was none.
fn print_next(log: &mut Log, printer: &mut Printer) -> Result<bool, Failure> {
    let mut empty = true;
    loop {
        let text = log.read()?;
        if text.is_empty() {
            return Ok(empty);
        }
        empty = false;
        printer.write(&text)?;
    }
}

/// The end of the output up to now, with this number of lines or more.
fn end_of(log: &mut Log, lines: usize) -> Result<Vec<u8>, Failure> {
    /// The part of the log that the lines are looked for in, in bytes.
    const LONGEST: usize = 64 << 20;
    log.skip_to_last(LONGEST as u64)?;
    let mut end = Vec::new();
    loop {
        let text = log.read()?;
        if text.is_empty() {
            return Ok(end);
        }
        end.extend(text);
        let kept = last(&end, lines).len().min(LONGEST);
        end.drain(..end.len() - kept);
    }
}

/// Writes the log as it is: a VMM may write bytes that are not text. On a terminal it writes what these bytes are.
struct Printer {
    shown: Option<ShownOutput>,
}

impl Printer {
    fn new(raw: bool) -> Self {
        Self { shown: (!raw && std::io::stdout().is_terminal()).then(ShownOutput::default) }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match &mut self.shown {
            Some(shown) => write(shown.show(bytes).as_bytes()),
            None => write(bytes),
        }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.shown.as_mut().map_or(Ok(()), |shown| write(shown.finish().as_bytes()))
    }
}

fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

/// The last lines. An unfinished line counts as one.
fn last(text: &[u8], lines: usize) -> &[u8] {
    let Some(end) = text.len().checked_sub(1) else { return text };
    let mut newlines = (0..end).rev().filter(|at| text[*at] == b'\n');
    match lines.checked_sub(1) {
        None => &[],
        Some(before) => newlines.nth(before).map_or(text, |at| &text[at + 1..]),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_last_lines_are_found() {
        let cases =
            [("", 3, ""), ("a", 1, "a"), ("a\nb\n", 1, "b\n"), ("a\nb", 1, "b"), ("a\nb\n", 2, "a\nb\n")];
        for (text, lines, end) in cases {
            assert_eq!(super::last(text.as_bytes(), lines), end.as_bytes(), "{text:?} {lines}");
        }
        assert_eq!(super::last(b"a\n\n\n", 2), b"\n\n");
        assert_eq!(super::last(b"a\n", 0), b"");
        assert_eq!(super::last(b"a\n", 9), b"a\n");
    }
}
