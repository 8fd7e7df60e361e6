//! A mistake on the command line in one line: what is wrong, and what was most likely meant.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// How like a flag one has to be, from 0 to 1, to be told as what was meant.
const NEAR: f64 = 0.8;

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
