//! A jail file's text to levels. Every mistake is told with its line.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::keys::{Key, Keys, Shape};
use super::level::{Content, Level, Setting, Value};
use crate::terminal::output::Failure;

/// The table that holds for every jail of the file.
pub(super) const DEFAULTS: &str = "defaults";
/// The tables of the jails.
pub(super) const JAIL: &str = "jail";
/// How many jails a table stands for.
pub(super) const COUNT: &str = "count";

/// The most jails that one table may stand for.
pub(super) const MOST: usize = 1000;

/// A jail file as it was read.
#[derive(Debug)]
pub(super) struct Source {
    /// As messages call it.
    pub(super) name: String,
    text: String,
    /// Where its relative paths begin.
    directory: PathBuf,
}

/// What a file says.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) defaults: Level,
    pub(super) jails: Vec<Table>,
}

/// A table of one or several jails.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) line: usize,
    /// Whether, and in which line, it says how many jails it stands for.
    pub(super) count: Option<(usize, usize)>,
    pub(super) level: Level,
}

type Entry<'a, 'i> = (&'a Spanned<DeString<'i>>, &'a Spanned<DeValue<'i>>);

impl Source {
    /// Reads a file; stdin for `-`, whose relative paths begin in the working directory.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let stdin = path == Path::new("-");
        let text =
            if stdin { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
        let text = text.map_err(|e| Failure::new(format!("--file {}: {e}", path.display())))?;
        let name = if stdin { "stdin".to_owned() } else { path.display().to_string() };
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { name, text, directory })
    }

    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        Self { name: "jail.toml".into(), text: text.into(), directory: "dir".into() }
    }

    /// What the file says.
    pub(super) fn parse(&self, keys: &Keys) -> Result<Parsed, Failure> {
        let table = DeTable::parse(&self.text).map_err(|e| {
            let span = e.span().unwrap_or_default();
            let line = self.line(span.start);
            match (e.message(), self.text.get(span)) {
                ("duplicate key", Some(key)) => self.error_at(line, &format!("`{key}` is there twice")),
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
                                self.error_at(line, "`jail` is a table: begin it with a line [[jail]]")
                            );
                        };
                        parsed.jails.push(self.table(line, table, keys)?);
                    }
                }
                (name @ (DEFAULTS | JAIL), _) => {
                    let what = format!("`{name}` is a table: begin it with a line [{name}]");
                    return Err(self.error_at(line, &what));
                }
                (name, _) if keys.get(name).is_some() => {
                    let what = format!("`{name}` belongs below a line [[jail]] or [defaults]");
                    return Err(self.error_at(line, &what));
                }
                (name, _) => return Err(self.unknown(line, "table", name, [DEFAULTS, JAIL].into_iter())),
            }
        }
        if parsed.jails.is_empty() {
            return Err(Failure::new(format!("{}: there is no jail in it: add a table [[jail]]", self.name)));
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
            let number = number
                .filter(|number| (1..=MOST).contains(number))
                .ok_or_else(|| self.error_at(line, &format!("`{COUNT}` is a number from 1 to {MOST}")))?;
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
            (Shape::Single | Shape::Optional, DeValue::String(_) | DeValue::Integer(_)) => {
                Ok(Content::Values(vec![self.value(key, "", value)?]))
            }
            (_, other) => Err(self.wrong_type(key, line, "is", key.shape.name(), other)),
        }
    }

    /// One text or number, behind `before`.
    fn value(&self, key: &Key, before: &str, value: &Spanned<DeValue<'_>>) -> Result<Value, Failure> {
        let line = self.line(value.span().start);
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            other => match integer(other) {
                Some(number) => number.to_string(),
                None => return Err(self.wrong_type(key, line, "holds", "texts and numbers", other)),
            },
        };
        if before.contains('\0') || text.contains('\0') {
            return Err(self.error_at(line, &format!("`{}` has a NUL character in it", key.name)));
        }
        let text = if key.is_relative_path(&text) { self.directory.join(text).into() } else { text.into() };
        let mut whole = std::ffi::OsString::from(before);
        whole.push::<std::ffi::OsString>(text);
        Ok(Value { text: whole, line: Some(line) })
    }

    fn wrong_type(&self, key: &Key, line: usize, verb: &str, wanted: &str, found: &DeValue<'_>) -> Failure {
        self.error_at(line, &format!("`{}` {verb} {wanted}, not {}", key.name, type_name(found)))
    }

    fn unknown<'a>(
        &self,
        line: usize,
        what: &str,
        name: &str,
        known: impl Iterator<Item = &'a str>,
    ) -> Failure {
        // As like each other as clap wants flags to be.
        let alike = known.map(|known| (strsim::jaro(name, known), known)).filter(|(alike, _)| *alike > 0.7);
        let meant = alike.max_by(|(a, _), (b, _)| a.total_cmp(b));
        let meant = meant.map_or(String::new(), |(_, meant)| format!("; did you mean `{meant}`?"));
        self.error_at(line, &format!("unknown {what} `{name}`{meant}"))
    }

    /// What is wrong in a line.
    pub(super) fn error_at(&self, line: usize, what: &str) -> Failure {
        Failure::new(format!("{}:{line}: {what}", self.name))
    }

    fn line(&self, at: usize) -> usize {
        self.text.get(..at).unwrap_or(&self.text).matches('\n').count() + 1
    }
}

/// The entries of a table as they stand in the file: what is wrong first is told.
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
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Switch => "true or false",
            Self::Single => "a text or a number",
            Self::Optional => "true, or a text",
            Self::List => "a list, as in [\"a\", \"b\"]",
            Self::Pairs => "a table or a list",
        }
    }
}
