//! A mistake on the command line in one line: what is wrong, and what was most likely meant.

use std::ffi::OsString;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::args::Cli;
use crate::output::{Failure, plain};

/// How like a flag one has to be, from 0 to 1, to be told as what was meant.
const NEAR: f64 = 0.8;

/// What is told of it.
pub(crate) fn line(error: &clap::Error) -> String {
    // A line's end in what was given is not the end of clap's line.
    let given = [ContextKind::InvalidArg, ContextKind::InvalidValue, ContextKind::InvalidSubcommand];
    let text = given
        .into_iter()
        .filter_map(|kind| word(error, kind))
        .fold(error.to_string(), |text, given| text.replace(given, &plain(given)));
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let cause: Vec<&str> = lines
        .take_while(|line| !["Usage:", "tip:", "For more"].iter().any(|end| line.starts_with(end)))
        .collect();
    let cause = cause.join(" ");
    let cause = cause.strip_prefix("error: ").unwrap_or(&cause);
    match next_step(error, cause) {
        Some(step) => format!("{cause}; {step}"),
        None => cause.to_owned(),
    }
}

/// Names the argument that has to be text and is not, of which clap says only that there is one.
pub(crate) fn no_text(mut words: Vec<OsString>) -> Failure {
    for at in 1..words.len() {
        let text = words[at].to_string_lossy().into_owned();
        let word = std::mem::replace(&mut words[at], text.into());
        // Others may be any bytes, as paths are.
        if Cli::try_parse_from(&words).err().is_none_or(|error| error.kind() != ErrorKind::InvalidUtf8) {
            return Failure::new(format!(
                "argument {at}, '{}', is not UTF-8",
                word.as_encoded_bytes().escape_ascii()
            ));
        }
    }
    Failure::new("an argument is not UTF-8")
}

fn next_step(error: &clap::Error, cause: &str) -> Option<String> {
    let suggestions =
        [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];
    let wrong = word(error, ContextKind::InvalidArg).unwrap_or_default();
    // One that is only a little like it is no help where it may as well be the VMM's.
    let is_near = |word: &str| !takes_words_for_a_vmm(error) || strsim::jaro(wrong, word) >= NEAR;
    if let Some(word) =
        suggestions.into_iter().find_map(|kind| word(error, kind)).filter(|word| is_near(word))
    {
        return Some(format!("did you mean '{word}'?"));
    }
    match error.kind() {
        // The words of a command that takes several jails.
        ErrorKind::MissingRequiredArgument if cause.ends_with(": <ID>...") => {
            Some("name jails, or choose them by --filter or --all".into())
        }
        // A pattern where a name is asked for, which the shell has left as it is.
        ErrorKind::ValueValidation if cause.contains("'[ID]...'") => {
            let pattern =
                word(error, ContextKind::InvalidValue).filter(|value| value.contains(['*', '?', '[']));
            pattern.map(|pattern| format!("a pattern is given as --filter 'id={pattern}'"))
        }
        ErrorKind::UnknownArgument if takes_words_for_a_vmm(error) => {
            Some("arguments for the VMM go behind --".into())
        }
        _ => None,
    }
}

/// Whether the command hands words on to a VMM: most likely the one that it does not know is the VMM's.
fn takes_words_for_a_vmm(error: &clap::Error) -> bool {
    let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) else { return false };
    let usage = usage.to_string();
    usage
        .split_whitespace()
        .nth(2)
        .is_some_and(|command| ["run", "create", "start", "plan"].contains(&command))
}

/// What an error holds of this kind, or the first of it.
fn word(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind)? {
        ContextValue::String(word) => Some(word),
        ContextValue::Strings(words) => words.first().map(String::as_str),
        _ => None,
    }
}
