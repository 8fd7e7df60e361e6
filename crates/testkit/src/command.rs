//! The `stockade` command, with its jails in the test's own state directory.

use std::process::Command;

use crate::{Guard, Output, program, run_with};

/// The command with these words, to be run.
pub fn command(guard: &Guard, words: &[&str]) -> Command {
    let mut command = Command::new(program("stockade"));
    command.args(words).env("STOCKADE_STATE_DIR", guard.state());
    command
}

/// The names of all commands that help tells of, but for `help`.
pub fn commands() -> Vec<String> {
    let help = run_with(Command::new(program("stockade")).arg("--help")).stdout;
    let rows = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    // What a row has no room for goes on further to the right.
    let rows = rows.take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
    let names = rows.filter(|row| !row.starts_with(' ')).filter_map(|row| row.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// Runs it.
pub fn stockade(guard: &Guard, words: &[&str]) -> Output {
    run_with(&mut command(guard, words))
}

/// What it prints where it must succeed, and has nothing to complain of.
///
/// # Panics
/// If it fails, or writes to stderr.
pub fn said(guard: &Guard, words: &[&str]) -> String {
    let output = stockade(guard, words);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{words:?}: {}", output.stdout);
    output.stdout
}
