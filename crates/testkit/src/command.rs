//! The `stockade` command with the test's own state directory.

use std::process::Command;

use crate::{Guard, Output, program, run_with};

/// The command with these arguments.
pub fn command(guard: &Guard, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("stockade"));
    command.args(arguments).env("STOCKADE_STATE_DIR", guard.state());
    command
}

/// The names of all subcommands in the help, except `help`.
pub fn commands() -> Vec<String> {
    let help = run_with(Command::new(program("stockade")).arg("--help")).stdout;
    let rows = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    // A continuation line is indented further.
    let rows = rows.take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  "));
    let names = rows.filter(|row| !row.starts_with(' ')).filter_map(|row| row.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// Runs the command with these arguments.
pub fn stockade(guard: &Guard, arguments: &[&str]) -> Output {
    run_with(&mut command(guard, arguments))
}

/// Runs the command with these arguments and returns its stdout.
///
/// # Panics
/// Panics if the command fails or writes to stderr.
pub fn said(guard: &Guard, arguments: &[&str]) -> String {
    stdout_of(&mut command(guard, arguments))
}

/// Arguments that create or run a jail of the probe.
pub fn probe_line(guard: &Guard, command: &str, id: &str, more: &[&str]) -> Vec<String> {
    let (base, probe) = (guard.base().display().to_string(), program("stockade-probe").display().to_string());
    let fixed = [command, "--id", id, "--exec-file", &probe, "--chroot-base-dir", &base];
    fixed.iter().chain(more).map(|word| (*word).to_owned()).collect()
}

/// The arguments of a line, as a command takes them.
pub fn as_str(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}

/// Creates a jail of the probe and returns its id.
///
/// # Panics
/// Panics if the command fails or writes to stderr.
pub fn create_probe(guard: &Guard, id: &str, flags: &[&str]) -> String {
    let id = guard.named(id);
    said(guard, &as_str(&probe_line(guard, "create", &id, flags)));
    id
}

/// Runs any command and returns its stdout.
///
/// # Panics
/// Panics if the command fails or writes to stderr.
pub fn stdout_of(command: &mut Command) -> String {
    let output = run_with(command);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{command:?}: {}", output.stdout);
    output.stdout
}
