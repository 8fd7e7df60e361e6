//! Usage errors in one line: the cause, and the most likely correction.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::foreign_flags::TAKE_VMM_ARGUMENTS;
use super::{other_tools, renamed_states};
use crate::terminal::output::{Code, Failure, escape_control};

/// Least similarity of a suggestion, from 0 to 1.
const MIN_SIMILARITY: f64 = 0.8;

/// The exit code for the command's own failures. Commands that pass on a program's exit code have a separate one.
pub(crate) fn code_of_own_failure(arguments: &[OsString]) -> Code {
    let command = arguments.iter().skip(1).find(|word| !word.as_encoded_bytes().starts_with(b"-"));
    match command.and_then(|word| word.to_str()) {
        Some("run" | "exec" | "shell") => Code::OwnFailure,
        _ => Code::Failed,
    }
}

/// Prints help and version unchanged, and a usage error in one line.
///
/// # Arguments
/// `cli`: the command that parsed the arguments.
pub(crate) fn report(error: &clap::Error, cli: &Command, arguments: Vec<OsString>) -> ExitCode {
    let own_failure = code_of_own_failure(&arguments);
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let printed = error.print().and_then(|()| std::io::stdout().flush());
            printed.map_or_else(|e| Failure::from(e).with_code(own_failure).report(), |()| ExitCode::SUCCESS)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            own_failure.into()
        }
        ErrorKind::InvalidUtf8 => not_utf8(cli, arguments).with_code(own_failure).report(),
        _ => Failure::new(describe(error, cli)).with_code(own_failure).report(),
    }
}

/// Returns the message for a usage error.
///
/// # Arguments
/// `cli`: the command whose subcommands may have the wrong flag.
pub(crate) fn describe(error: &clap::Error, cli: &Command) -> String {
    // Escaped, because a newline in an argument must not end the line of clap's message that is cut out below.
    let arguments = [ContextKind::InvalidArg, ContextKind::InvalidValue, ContextKind::InvalidSubcommand];
    let text = arguments
        .into_iter()
        .filter_map(|kind| context(error, kind))
        .fold(error.to_string(), |text, argument| text.replace(argument, &escape_control(argument)));
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let cause: Vec<&str> = lines
        .take_while(|line| !["Usage:", "tip:", "For more"].iter().any(|end| line.starts_with(end)))
        .collect();
    let cause = cause.join(" ");
    let cause = cause.strip_prefix("error: ").unwrap_or(&cause);
    if let Some(text) = path_for_an_id(error, cause).or_else(|| only_without_file(error)) {
        return text;
    }
    let (cause, values) =
        match cause.strip_suffix(']').and_then(|cause| cause.split_once(" [possible values: ")) {
            Some((cause, values)) => (cause, Some(format!("use one of {values}"))),
            None => (cause, None),
        };
    match hint(error, cause, cli).or(values) {
        Some(hint) => format!("{cause}; {hint}"),
        None => cause.to_owned(),
    }
}

/// Finds the argument that is not UTF-8, because clap does not name it.
fn not_utf8(cli: &Command, mut arguments: Vec<OsString>) -> Failure {
    for at in 1..arguments.len() {
        let text = arguments[at].to_string_lossy().into_owned();
        let argument = std::mem::replace(&mut arguments[at], text.into());
        // Not every non-UTF-8 argument is wrong: a path may hold any bytes.
        let parsed = cli.clone().try_get_matches_from(&arguments);
        if parsed.err().is_none_or(|error| error.kind() != ErrorKind::InvalidUtf8) {
            return Failure::new(format!(
                "argument {at}, '{}', is not UTF-8; write it in UTF-8",
                argument.as_encoded_bytes().escape_ascii()
            ));
        }
    }
    Failure::new("an argument is not UTF-8; write it in UTF-8")
}

fn hint(error: &clap::Error, cause: &str, cli: &Command) -> Option<String> {
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let wrong = context(error, ContextKind::InvalidSubcommand)?;
            other_tools::command(wrong)
                .or_else(|| suggestion(error, ContextKind::SuggestedSubcommand, wrong))
                .or_else(|| Some("list the commands with `stockade help`".to_owned()))
        }
        ErrorKind::UnknownArgument => {
            let wrong = context(error, ContextKind::InvalidArg)?;
            let (command, arguments) = (command(error), arguments());
            other_tools::argument(&command, &arguments, wrong)
                .or_else(|| suggestion(error, ContextKind::SuggestedArg, wrong))
                .or_else(|| of_another_command(cli, &command, wrong))
                .or_else(|| {
                    let takes_vmm = TAKE_VMM_ARGUMENTS.contains(&command.as_str());
                    takes_vmm.then(|| stray_argument(&command, &arguments, wrong))
                })
                .or_else(|| Some(format!("see `{} --help`", ["stockade", &command].join(" ").trim_end())))
        }
        // `--timeout` without the flag that it limits.
        ErrorKind::MissingRequiredArgument if cause.ends_with(": --ready[=<SOCKET>]") => {
            Some("use --timeout with --ready".into())
        }
        // A command that takes several jails.
        ErrorKind::MissingRequiredArgument if cause.ends_with(": <ID>...") => {
            Some("name jails, or select them with --filter or --all".into())
        }
        ErrorKind::MissingRequiredArgument => {
            let is_one = contexts(error, ContextKind::InvalidArg).len() < 2;
            Some(if is_one { "add it" } else { "add them" }.into())
        }
        ErrorKind::InvalidValue if cause.ends_with("none was supplied") => Some("add it".into()),
        ErrorKind::TooManyValues => Some("remove the value".into()),
        ErrorKind::ArgumentConflict if cause.ends_with("multiple times") => Some("use it once".into()),
        ErrorKind::ArgumentConflict => Some("remove one of them".into()),
        // A glob pattern in place of an id: the shell passes it unchanged if no file matches.
        ErrorKind::ValueValidation if cause.contains("'[ID]...'") => {
            let wrong = context(error, ContextKind::InvalidValue)?;
            if wrong.contains(['*', '?', '[']) {
                return Some(format!("use --filter 'id={wrong}' for a pattern"));
            }
            let arguments = arguments();
            other_tools::argument(&command_word(&arguments), &arguments, wrong)
        }
        _ => {
            let wrong = context(error, ContextKind::InvalidValue)?;
            let flag = context(error, ContextKind::InvalidArg).unwrap_or_default();
            renamed_states::hint(flag, wrong)
                .or_else(|| suggestion(error, ContextKind::SuggestedValue, wrong))
                .or_else(|| is_no_number(cause).then(|| "use a whole number without a unit".to_owned()))
        }
    }
}

/// The hint for an argument that a command with a VMM's arguments does not have.
///
/// Without `--id`, `--exec-file` and `--file`, the jail itself was written as a positional argument.
fn stray_argument(command: &str, arguments: &[String], wrong: &str) -> String {
    let has =
        |flags: &[&str]| arguments.iter().any(|argument| flags.iter().any(|flag| argument.starts_with(flag)));
    let has_jail = has(&["--exec-file", "--file", "-f"]);
    let is_path = !wrong.starts_with('-') && wrong.contains('/');
    match (command, is_path) {
        ("start", _) => "put the VMM's arguments after --".to_owned(),
        (_, true) if !has_jail && has(&["--id"]) => format!("did you mean '--exec-file {wrong}'?"),
        (_, true) if !has_jail => format!("did you mean '--id ID --exec-file {wrong}'?"),
        _ if has(&["--file", "-f"]) && !wrong.starts_with('-') => {
            format!("use --only {wrong} for one jail of the file, or put the VMM's arguments after --")
        }
        _ if !has_jail && !has(&["--id"]) => {
            "name the jail with --id and the VMM with --exec-file".to_owned()
        }
        _ => "put the VMM's arguments after --".to_owned(),
    }
}

/// The message for a path in place of a jail's id.
fn path_for_an_id(error: &clap::Error, cause: &str) -> Option<String> {
    let wrong = context(error, ContextKind::InvalidValue)?;
    let argument = context(error, ContextKind::InvalidArg)?;
    let is_id = ["<ID>", "<ID>...", "[ID]..."].contains(&argument);
    if !is_id || !wrong.contains('/') {
        return None;
    }
    let (before, _) = cause.split_once(&format!(" for '{argument}': "))?;
    let command = command_word(&arguments());
    // A path may also be that of a file or socket which belongs to a flag.
    if other_tools::argument(&command, &arguments(), wrong).is_some() {
        return None;
    }
    let fix = match command.as_str() {
        "start" => "name a created jail; the VMM is set by --exec-file of `create` or `run`",
        "exec" | "shell" => "name the jail before the program",
        _ => "name a jail that `stockade ps` lists",
    };
    Some(format!("{before} for '{argument}': a path is no id; {fix}"))
}

/// The message for `--only` without `--file`, of which clap would say that it needs the flags of a single jail too.
fn only_without_file(error: &clap::Error) -> Option<String> {
    let missing = contexts(error, ContextKind::InvalidArg);
    let is_it = error.kind() == ErrorKind::MissingRequiredArgument && missing.contains(&"--file <FILE>");
    is_it.then(|| "--only selects jails of a file; add --file".to_owned())
}

/// Whether clap's message ends with an error of the standard library's parser of integers.
fn is_no_number(cause: &str) -> bool {
    ["invalid digit found in string", "number too large to fit in target type"]
        .iter()
        .any(|end| cause.ends_with(end))
}

/// The closest of clap's suggestions, if it is close enough.
fn suggestion(error: &clap::Error, kind: ContextKind, wrong: &str) -> Option<String> {
    // Without dashes, which make any two flags similar.
    let similarity = |candidate: &str| strsim::jaro(bare(wrong), bare(candidate));
    let similar =
        contexts(error, kind).into_iter().filter(|candidate| similarity(candidate) >= MIN_SIMILARITY);
    let closest = similar.max_by(|one, other| similarity(one).total_cmp(&similarity(other)))?;
    Some(format!("did you mean '{closest}'?"))
}

fn contexts(error: &clap::Error, kind: ContextKind) -> Vec<&str> {
    match error.get(kind) {
        Some(ContextValue::String(value)) => vec![value],
        Some(ContextValue::Strings(values)) => values.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

/// A flag without its dashes and its value.
fn bare(flag: &str) -> &str {
    flag.trim_start_matches('-').split('=').next().unwrap_or_default()
}

/// The hint for a flag that only another command has.
fn of_another_command(cli: &Command, command: &str, wrong: &str) -> Option<String> {
    let name = wrong.strip_prefix("--").map(bare)?;
    let has = |command: &&Command| command.get_arguments().any(|flag| flag.get_long() == Some(name));
    let owners: Vec<&str> = cli.get_subcommands().filter(has).map(Command::get_name).collect();
    match owners[..] {
        [] => None,
        _ if command.is_empty() => Some(format!("put {wrong} after the command")),
        [owner] => Some(format!("it is a flag of `{owner}`")),
        [first, last] => Some(format!("it is a flag of `{first}` and `{last}`")),
        [first, second, last] => Some(format!("it is a flag of `{first}`, `{second}` and `{last}`")),
        _ => None,
    }
}

/// The name of the wrong command line's command; empty if clap has not reached one.
fn command(error: &clap::Error) -> String {
    let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) else { return String::new() };
    let usage = usage.to_string();
    let name = usage.split_whitespace().nth(2).unwrap_or_default();
    if name.starts_with(['[', '<']) { String::new() } else { name.to_owned() }
}

/// The command of a command line, also if clap does not name it; empty without one.
fn command_word(arguments: &[String]) -> String {
    arguments.iter().skip(1).find(|argument| !argument.starts_with('-')).cloned().unwrap_or_default()
}

/// The arguments of this process before those of the VMM.
fn arguments() -> Vec<String> {
    let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    arguments.take_while(|argument| argument != "--").collect()
}

/// The first context value of this kind.
fn context(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    contexts(error, kind).into_iter().next()
}
