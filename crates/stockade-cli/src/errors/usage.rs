//! A mistake on the command line in one line: what is wrong, and what was most likely meant.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{other_tools, renamed_states};
use crate::terminal::output::{Code, Failure, escape_control};

/// How like a word one has to be, from 0 to 1, to be told as what was meant.
const NEAR: f64 = 0.8;

/// With what the command ends if it fails itself: one that ends with the code of another program has a code for that.
pub(crate) fn code_of_own_failure(arguments: &[OsString]) -> Code {
    let command = arguments.iter().skip(1).find(|word| !word.as_encoded_bytes().starts_with(b"-"));
    match command.and_then(|word| word.to_str()) {
        Some("run" | "exec" | "shell") => Code::OwnFailure,
        _ => Code::Failed,
    }
}

/// Prints help and version as they are, and a mistake in one line.
///
/// # Arguments
/// `cli` is the command line that the arguments were read by.
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

/// What is told of it.
///
/// # Arguments
/// `cli` has the commands that a flag may belong to.
pub(crate) fn describe(error: &clap::Error, cli: &Command) -> String {
    // A line's end in what was given is not the end of clap's line.
    let given = [ContextKind::InvalidArg, ContextKind::InvalidValue, ContextKind::InvalidSubcommand];
    let text = given
        .into_iter()
        .filter_map(|kind| word(error, kind))
        .fold(error.to_string(), |text, given| text.replace(given, &escape_control(given)));
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let cause: Vec<&str> = lines
        .take_while(|line| !["Usage:", "tip:", "For more"].iter().any(|end| line.starts_with(end)))
        .collect();
    let cause = cause.join(" ");
    let cause = cause.strip_prefix("error: ").unwrap_or(&cause);
    match next_step(error, cause, cli) {
        Some(step) => format!("{cause}; {step}"),
        None => cause.to_owned(),
    }
}

/// Names the argument that has to be text and is not, of which clap says only that there is one.
fn not_utf8(cli: &Command, mut arguments: Vec<OsString>) -> Failure {
    for at in 1..arguments.len() {
        let text = arguments[at].to_string_lossy().into_owned();
        let word = std::mem::replace(&mut arguments[at], text.into());
        // Others may be any bytes, as paths are.
        let parsed = cli.clone().try_get_matches_from(&arguments);
        if parsed.err().is_none_or(|error| error.kind() != ErrorKind::InvalidUtf8) {
            return Failure::new(format!(
                "argument {at}, '{}', is not UTF-8",
                word.as_encoded_bytes().escape_ascii()
            ));
        }
    }
    Failure::new("an argument is not UTF-8")
}

fn next_step(error: &clap::Error, cause: &str, cli: &Command) -> Option<String> {
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let wrong = word(error, ContextKind::InvalidSubcommand)?;
            let known = other_tools::command(wrong).map(str::to_owned);
            known.or_else(|| likeliest(error, ContextKind::SuggestedSubcommand, wrong))
        }
        ErrorKind::UnknownArgument => {
            let wrong = word(error, ContextKind::InvalidArg)?;
            let (command, arguments) = (command(error), arguments());
            other_tools::flag(&command, &arguments, wrong)
                .or_else(|| likeliest(error, ContextKind::SuggestedArg, wrong))
                .or_else(|| of_another_command(cli, &command, wrong))
                .or_else(|| {
                    let to_a_vmm = other_tools::TAKES_VMM_ARGUMENTS.contains(&command.as_str());
                    to_a_vmm.then(|| "arguments for the VMM go behind --".to_owned())
                })
        }
        // The words of a command that takes several jails.
        ErrorKind::MissingRequiredArgument if cause.ends_with(": <ID>...") => {
            Some("name jails, or choose them by --filter or --all".into())
        }
        // A pattern where a name is asked for, which the shell has left as it is.
        ErrorKind::ValueValidation if cause.contains("'[ID]...'") => {
            let wrong = word(error, ContextKind::InvalidValue)?;
            if wrong.contains(['*', '?', '[']) {
                return Some(format!("a pattern is given as --filter 'id={wrong}'"));
            }
            let arguments = arguments();
            other_tools::flag(arguments.get(1)?, &arguments, wrong)
        }
        _ => {
            let wrong = word(error, ContextKind::InvalidValue)?;
            let flag = word(error, ContextKind::InvalidArg).unwrap_or_default();
            renamed_states::hint(flag, wrong).or_else(|| likeliest(error, ContextKind::SuggestedValue, wrong))
        }
    }
}

/// The one of the words that clap suggests which is most like the wrong one, if it is like it at all.
fn likeliest(error: &clap::Error, kind: ContextKind, wrong: &str) -> Option<String> {
    // Dashes are like each other in any two flags.
    let likeness = |word: &str| strsim::jaro(bare(wrong), bare(word));
    let near = suggested(error, kind).into_iter().filter(|word| likeness(word) >= NEAR);
    let word = near.max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    Some(format!("did you mean '{word}'?"))
}

fn suggested(error: &clap::Error, kind: ContextKind) -> Vec<&str> {
    match error.get(kind) {
        Some(ContextValue::String(word)) => vec![word],
        Some(ContextValue::Strings(words)) => words.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

/// A flag without its dashes and its value.
fn bare(flag: &str) -> &str {
    flag.trim_start_matches('-').split('=').next().unwrap_or_default()
}

/// Where a flag belongs that this command does not have.
fn of_another_command(cli: &Command, command: &str, wrong: &str) -> Option<String> {
    let name = wrong.strip_prefix("--").map(bare)?;
    let has = |command: &&Command| command.get_arguments().any(|flag| flag.get_long() == Some(name));
    let owners: Vec<&str> = cli.get_subcommands().filter(has).map(Command::get_name).collect();
    match owners[..] {
        [] => None,
        _ if command.is_empty() => Some(format!("{wrong} goes behind the command")),
        [owner] => Some(format!("it is a flag of {owner}")),
        _ => None,
    }
}

/// The command whose line is wrong; empty if that is none yet.
fn command(error: &clap::Error) -> String {
    let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) else { return String::new() };
    let usage = usage.to_string();
    let word = usage.split_whitespace().nth(2).unwrap_or_default();
    if word.starts_with(['[', '<']) { String::new() } else { word.to_owned() }
}

/// The arguments of this process up to those for the VMM.
fn arguments() -> Vec<String> {
    let arguments = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    arguments.take_while(|word| word != "--").collect()
}

/// What an error holds of this kind, or the first of it.
fn word(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    suggested(error, kind).into_iter().next()
}
