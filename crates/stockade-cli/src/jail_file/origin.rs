//! The origin of a jail's description, for messages about mistakes in it.

use std::rc::Rc;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use super::keys::name;
use super::level::{Content, Level};
use super::parse::Source;
use crate::errors::usage;
use crate::terminal::output::Failure;

/// The origin of a jail's description.
#[derive(Debug)]
pub(super) enum Origin {
    /// The command line.
    Flags,
    /// A table of a file.
    File {
        source: Rc<Source>,
        /// The first line of the table.
        line: usize,
        level: Level,
        /// The jail's id; `None` if it is the only jail.
        id: Option<String>,
    },
}

impl Origin {
    /// Replaces the flag by the file's line and key, and adds the jail's id to other failures.
    pub(super) fn locate(&self, failure: Failure) -> Failure {
        let Self::File { source, level, id, .. } = self else { return failure };
        match (failure, id) {
            (Failure::Flag { flag, what, text }, _) => match level.line_of(&flag, what.as_deref(), &text) {
                Some(line) => {
                    let what = what.map_or(String::new(), |what| format!(" {what}"));
                    source.error_at(line, &format!("{flag}{what}: {text}"))
                }
                None => Failure::Flag { flag, what, text },
            },
            (Failure::Message(text), Some(id)) if !text.contains(id.as_str()) => {
                Failure::Message(format!("jail '{id}': {text}"))
            }
            (failure, _) => failure,
        }
    }

    /// The failure for a clap error of the equivalent command line.
    pub(super) fn explain(&self, command: &Command, error: &clap::Error) -> Failure {
        let Self::File { source, line, .. } = self else {
            return Failure::new(usage::describe(error, command));
        };
        let arguments: Vec<&str> = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(argument)) => vec![argument],
            Some(ContextValue::Strings(arguments)) => arguments.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        };
        let keys: Vec<&str> = arguments.iter().map(|argument| key(argument)).collect();
        match (error.kind(), &arguments[..]) {
            (ErrorKind::MissingRequiredArgument, _) => {
                let always = |flag: &Arg| keys.contains(&name(flag).as_str()) && flag.is_required_set();
                let why = if command.get_arguments().any(always) { "" } else { " with its other keys" };
                source.error_at(*line, &format!("the jail needs `{}`{why}", keys.join("` and `")))
            }
            (ErrorKind::InvalidValue | ErrorKind::ValueValidation, [argument]) => {
                let text = usage::describe(error, command).replace(&format!(" for '{argument}'"), "");
                self.locate(Failure::flag(keys[0], text))
            }
            (ErrorKind::ArgumentConflict, [argument]) => {
                let other = match error.get(ContextKind::PriorArg) {
                    Some(ContextValue::String(other)) => key(other),
                    _ => "others",
                };
                source.error_at(
                    *line,
                    &format!("`{}` cannot be used with `{other}`; remove one of them", key(argument)),
                )
            }
            _ => source.error_at(*line, &usage::describe(error, command)),
        }
    }
}

/// The key of an argument in clap's form: `--grace <SECONDS>`, `--ready[=<SOCKET>]`.
fn key(argument: &str) -> &str {
    argument.trim_start_matches('-').split([' ', '[', '=']).next().unwrap_or_default()
}

impl Level {
    /// The line of the wrong value, or of the key.
    fn line_of(&self, key: &str, what: Option<&str>, text: &str) -> Option<usize> {
        let setting = self.0.get(key)?;
        let is_wrong = |value: &str| match what {
            // The value may have a name or options after it.
            Some(what) => {
                value.strip_prefix(what).is_some_and(|rest| rest.is_empty() || rest.starts_with(['=', ':']))
            }
            None => text.contains(value),
        };
        let values = if let Content::Values(values) = &setting.content { &values[..] } else { &[] };
        // The last match: of two values that exclude each other, the second is the mistake.
        match values.iter().rfind(|value| value.text.to_str().is_some_and(is_wrong)) {
            Some(value) => value.line,
            None => setting.line,
        }
    }
}
