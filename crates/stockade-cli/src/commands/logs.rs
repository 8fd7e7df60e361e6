//! `stockade logs`: prints the log of a VMM.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use stockade::spec::JailId;

use crate::flags::lookup::{find, no_such_jail};
use crate::flags::state::StateArgs;
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
    let text = log.read()?;
    let mut empty = text.is_empty();
    write(args.lines.map_or(&text[..], |lines| last(&text, lines)))?;
    while args.follow && log.wait(None)? {
        let text = log.read()?;
        empty &= text.is_empty();
        write(&text)?;
    }
    if empty {
        info(&format!(
            "jail '{id}' has no log; its VMM wrote nothing, or was not started by `start` or `run --detach`"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the log as it is: a VMM may write bytes that are not text.
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
