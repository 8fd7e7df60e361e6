//! A mistake on the command line in one line: what is wrong, and what was most likely meant.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What is told of it.
pub(crate) fn line(error: &clap::Error) -> String {
    let text = error.to_string();
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

fn next_step(error: &clap::Error, cause: &str) -> Option<String> {
    let suggestions =
        [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];
    if let Some(word) = suggestions.into_iter().find_map(|kind| word(error, kind)) {
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
        // A word where only flags may stand: most likely the VMM's.
        ErrorKind::UnknownArgument if !cause.contains("'-") => {
            Some("arguments for the VMM go behind --".into())
        }
        _ => None,
    }
}

/// What an error holds of this kind, or the first of it.
fn word(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind)? {
        ContextValue::String(word) => Some(word),
        ContextValue::Strings(words) => words.first().map(String::as_str),
        _ => None,
    }
}
