//! Parses a jail file to levels. Each error has its line.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::keys::{Key, Keys, Shape};
use super::level::{Content, Level, Setting, Value};
use crate::terminal::output::Failure;
use stockade::spec::{cannot, not_expanded};

/// The table with settings for every jail of the file.
pub(super) const DEFAULTS: &str = "defaults";
/// The tables of the jails.
pub(super) const JAIL: &str = "jail";
/// The key for the number of jails that a table describes.
pub(super) const COUNT: &str = "count";

/// The most jails that one table may describe.
pub(super) const MAX_COUNT: usize = 1000;

/// The text of a jail file.
#[derive(Debug)]
pub(super) struct Source {
    /// The name in messages.
    pub(super) name: String,
    text: String,
    /// The base of relative paths in the file.
    directory: PathBuf,
}

#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) defaults: Level,
    pub(super) jails: Vec<Table>,
}

/// A table of one or several jails.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) line: usize,
    /// The number of jails and the line of `count`, if the table has one.
    pub(super) count: Option<(usize, usize)>,
    pub(super) level: Level,
}

type Entry<'a, 'i> = (&'a Spanned<DeString<'i>>, &'a Spanned<DeValue<'i>>);

impl Source {
    /// Reads a file, or stdin for `-`. Paths in stdin are relative to the working directory.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let stdin = path == Path::new("-");
        let text =
            if stdin { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
        let text = text.map_err(|e| Failure::flag("file", cannot("read", path, &e)))?;
        let name = if stdin { "stdin".to_owned() } else { path.display().to_string() };
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { name, text, directory })
    }

    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        Self { name: "jail.toml".into(), text: text.into(), directory: "dir".into() }
    }

    pub(super) fn parse(&self, keys: &Keys) -> Result<Parsed, Failure> {
        let table = DeTable::parse(&self.text).map_err(|e| {
            let span = e.span().unwrap_or_default();
            let line = self.line(span.start);
            match (e.message(), self.text.get(span)) {
                ("duplicate key", Some(key)) => self.error_at(line, &format!("duplicate key `{key}`")),
                (message, _) => self.error_at(line, &message.replace('\n', " ")),
            }
        })?;
        let mut parsed = Parsed { defaults: Level::default(), jails: Vec::new() };
        for (name, value) in in_order(table.get_ref()) {
            let line = self.line(name.span().start);
            match (name.get_ref().as_ref(), value.get_ref()) {
                (DEFAULTS, DeValue::Table(table)) => {
                    parsed.defaults = self.level(in_order(table), keys, &[])?;
                }
                (JAIL, DeValue::Table(table)) => parsed.jails.push(self.table(line, table, keys)?),
                (JAIL, DeValue::Array(tables)) => {
                    for table in tables {
                        let line = self.line(table.span().start);
                        let DeValue::Table(table) = table.get_ref() else {
                            return Err(
                                self.error_at(line, "`jail` must be a table; begin it with a line [[jail]]")
                            );
                        };
                        parsed.jails.push(self.table(line, table, keys)?);
                    }
                }
                (name @ (DEFAULTS | JAIL), _) => {
                    let what = format!("`{name}` must be a table; begin it with a line [{name}]");
                    return Err(self.error_at(line, &what));
                }
                (name, _) if keys.get(name).is_some() => {
                    let what =
                        format!("`{name}` is in no table; move it below a line [[jail]] or [defaults]");
                    return Err(self.error_at(line, &what));
                }
                (name, _) => return Err(self.unknown(line, "table", name, [DEFAULTS, JAIL].into_iter())),
            }
        }
        if parsed.jails.is_empty() {
            return Err(Failure::new(format!(
                "{}: the file describes no jail; add a table [[jail]]",
                self.name
            )));
        }
        Ok(parsed)
    }

    fn table(&self, line: usize, table: &DeTable<'_>, keys: &Keys) -> Result<Table, Failure> {
        let mut count = None;
        let mut rest = in_order(table);
        if let Some(at) = rest.iter().position(|(name, _)| name.get_ref() == COUNT) {
            let (name, value) = rest.remove(at);
            let line = self.line(name.span().start);
            let number = integer(value.get_ref()).and_then(|number| usize::try_from(number).ok());
            let number = number.filter(|number| (1..=MAX_COUNT).contains(number)).ok_or_else(|| {
                self.error_at(line, &format!("`{COUNT}` must be an integer from 1 to {MAX_COUNT}"))
            })?;
            count = Some((number, line));
        }
        Ok(Table { line, count, level: self.level(rest, keys, &[COUNT])? })
    }

    fn level(&self, table: Vec<Entry<'_, '_>>, keys: &Keys, more: &[&str]) -> Result<Level, Failure> {
        let mut level = Level::default();
        for (name, value) in table {
            let line = self.line(name.span().start);
            let name = name.get_ref().as_ref();
            let Some(key) = keys.get(name) else {
                let names = keys.iter().map(|key| key.name.as_str()).chain(more.iter().copied());
                return Err(self.unknown(line, "key", name, names));
            };
            let content = self.content(key, line, value)?;
            level.0.insert(name.to_owned(), Setting { line: Some(line), content });
        }
        Ok(level)
    }

    fn content(&self, key: &Key, line: usize, value: &Spanned<DeValue<'_>>) -> Result<Content, Failure> {
        match (key.shape, value.get_ref()) {
            (Shape::Switch | Shape::Optional, DeValue::Boolean(on)) => Ok(Content::Switch(*on)),
            (Shape::List | Shape::Pairs, DeValue::Array(items)) => {
                let values = items.iter().map(|item| self.value(key, "", item));
                Ok(Content::Values(values.collect::<Result<_, _>>()?))
            }
            (Shape::Pairs, DeValue::Table(pairs)) => {
                let value =
                    |(name, value): Entry<'_, '_>| self.value(key, &format!("{}=", name.get_ref()), value);
                Ok(Content::Values(in_order(pairs).into_iter().map(value).collect::<Result<_, _>>()?))
            }
            (Shape::Single | Shape::Optional | Shape::Duration, DeValue::String(_) | DeValue::Integer(_))
            | (Shape::Duration, DeValue::Float(_)) => Ok(Content::Values(vec![self.value(key, "", value)?])),
            (_, other) => Err(self.wrong_type(key, line, "be", key.shape.name(), other)),
        }
    }

    /// One string or integer, after `prefix`.
    fn value(&self, key: &Key, prefix: &str, value: &Spanned<DeValue<'_>>) -> Result<Value, Failure> {
        let line = self.line(value.span().start);
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Float(number) if key.shape == Shape::Duration => number.as_str().to_owned(),
            other => match integer(other) {
                Some(number) => number.to_string(),
                None => return Err(self.wrong_type(key, line, "contain", "strings and integers", other)),
            },
        };
        if prefix.contains('\0') || text.contains('\0') {
            return Err(self.error_at(line, &format!("`{}` contains a NUL character", key.name)));
        }
        let text = if key.is_relative_path(&text) {
            self.directory.join(self.without_tilde(key, line, text)?).into()
        } else {
            text.into()
        };
        let mut whole = std::ffi::OsString::from(prefix);
        whole.push::<std::ffi::OsString>(text);
        Ok(Value { text: whole, line: Some(line) })
    }

    /// Refuses a path with a `~`, which no shell expands here. Joined to the directory it would no longer be first.
    fn without_tilde(&self, key: &Key, line: usize, text: String) -> Result<String, Failure> {
        let first = text.split('/').next().unwrap_or_default();
        match not_expanded(Path::new(&text)) {
            Some(what) if !self.directory.join(first).exists() => {
                Err(self.error_at(line, &format!("{}: {what}", key.name)))
            }
            _ => Ok(text),
        }
    }

    fn wrong_type(&self, key: &Key, line: usize, verb: &str, wanted: &str, found: &DeValue<'_>) -> Failure {
        self.error_at(line, &format!("`{}` must {verb} {wanted}, not {}", key.name, type_name(found)))
    }

    fn unknown<'a>(
        &self,
        line: usize,
        what: &str,
        name: &str,
        known: impl Iterator<Item = &'a str>,
    ) -> Failure {
        // The limit that clap uses for flags.
        let similar = known.map(|known| (strsim::jaro(name, known), known)).filter(|(score, _)| *score > 0.7);
        let closest = similar.max_by(|(a, _), (b, _)| a.total_cmp(b));
        let hint = closest.map_or(String::new(), |(_, closest)| format!("; did you mean `{closest}`?"));
        self.error_at(line, &format!("unknown {what} `{name}`{hint}"))
    }

    /// The failure for a mistake in a line.
    pub(super) fn error_at(&self, line: usize, what: &str) -> Failure {
        Failure::new(format!("{}:{line}: {what}", self.name))
    }

    fn line(&self, at: usize) -> usize {
        self.text.get(..at).unwrap_or(&self.text).matches('\n').count() + 1
    }
}

/// The entries of a table in the order of the file, so that the first mistake is reported.
fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<Entry<'a, 'i>> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

fn integer(value: &DeValue<'_>) -> Option<i128> {
    let DeValue::Integer(number) = value else { return None };
    i128::from_str_radix(number.as_str(), number.radix()).ok()
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Switch => "true or false",
            Self::Single => "a string or an integer",
            Self::Duration => "a string or a number",
            Self::Optional => "true or a string",
            Self::List => "an array such as [\"a\", \"b\"]",
            Self::Pairs => "a table or an array",
        }
    }
}
