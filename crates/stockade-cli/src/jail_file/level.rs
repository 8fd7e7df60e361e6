//! The settings of a jail at one level: the defaults of a file, a jail's table, or the command line. A later level
//! overrides an earlier one.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::keys::{ARGUMENTS, Keys, Shape};

/// A line of a file; `None` on the command line.
pub(super) type Line = Option<usize>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) text: OsString,
    pub(super) line: Line,
}

impl Value {
    pub(super) fn of_flag(text: &OsStr) -> Self {
        Self { text: text.to_owned(), line: None }
    }
}

/// The value of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) line: Line,
    pub(super) content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Whether the flag is given, without a value.
    Switch(bool),
    Values(Vec<Value>),
}

/// The settings of a jail, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Level(pub(super) BTreeMap<String, Setting>);

impl Level {
    /// Applies a later level.
    ///
    /// Lists are concatenated; a pair replaces earlier pairs of the same name. Any other value is replaced, and keys
    /// that it excludes are removed.
    pub(super) fn overridden_by(mut self, later: &Self, keys: &Keys) -> Self {
        let known = || later.0.iter().filter_map(|(name, setting)| Some((name, setting, keys.get(name)?)));
        // Two keys of one level that exclude each other are a mistake, so both stay and clap reports it later.
        for (_, _, key) in known().filter(|(_, setting, _)| setting.content != Content::Switch(false)) {
            self.0.retain(|earlier, _| !key.conflicts.contains(earlier));
        }
        for (name, setting, key) in known() {
            let mut setting = setting.clone();
            if let (true, Some(earlier)) = (key.adds_up(), self.0.remove(name)) {
                setting.content = concatenate(earlier.content, setting.content, key.shape == Shape::Pairs);
            }
            self.0.insert(name.clone(), setting);
        }
        self
    }

    /// Changes every value that comes from a file.
    pub(super) fn map_texts(&self, change: impl Fn(&str) -> String) -> Self {
        let mut changed = self.clone();
        for setting in changed.0.values_mut() {
            let Content::Values(values) = &mut setting.content else { continue };
            for value in values.iter_mut().filter(|value| value.line.is_some()) {
                // A value from a file is always UTF-8.
                if let Some(text) = value.text.to_str() {
                    value.text = change(text).into();
                }
            }
        }
        changed
    }

    /// The first value of a key.
    pub(super) fn single(&self, name: &str) -> Option<&Value> {
        match &self.0.get(name)?.content {
            Content::Values(values) => values.first(),
            Content::Switch(_) => None,
        }
    }

    /// Returns the equivalent arguments, for a command that has the keys for which `knows` is true.
    pub(super) fn arguments(&self, knows: impl Fn(&str) -> bool) -> Vec<OsString> {
        let mut arguments = Vec::new();
        for (name, setting) in self.0.iter().filter(|(name, _)| *name != ARGUMENTS && knows(name)) {
            match &setting.content {
                Content::Switch(on) => arguments.extend(on.then(|| format!("--{name}").into())),
                // With an equals sign, so that a value may begin with a dash.
                Content::Values(values) => arguments.extend(values.iter().map(|value| {
                    let mut argument = OsString::from(format!("--{name}="));
                    argument.push(&value.text);
                    argument
                })),
            }
        }
        if let Some(Setting { content: Content::Values(values), .. }) = self.0.get(ARGUMENTS) {
            arguments.push("--".into());
            arguments.extend(values.iter().map(|value| value.text.clone()));
        }
        arguments
    }
}

fn concatenate(earlier: Content, later: Content, pairs: bool) -> Content {
    let (Content::Values(mut all), Content::Values(more)) = (earlier, later.clone()) else { return later };
    if pairs {
        all.retain(|value| !more.iter().any(|other| pair_name(&other.text) == pair_name(&value.text)));
    }
    all.extend(more);
    Content::Values(all)
}

fn pair_name(text: &OsStr) -> &[u8] {
    text.as_bytes().split(|byte| *byte == b'=').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(setting: &[(&str, &[&str])]) -> Level {
        let values = |texts: &[&str]| {
            Content::Values(texts.iter().map(|text| Value { text: text.into(), line: Some(1) }).collect())
        };
        let setting = setting.iter().map(|(name, texts)| {
            let content = if texts.is_empty() { Content::Switch(true) } else { values(texts) };
            ((*name).to_owned(), Setting { line: Some(1), content })
        });
        Level(setting.collect())
    }

    fn arguments(earlier: &[(&str, &[&str])], later: &[(&str, &[&str])]) -> Vec<String> {
        let both = level(earlier).overridden_by(&level(later), &Keys::all());
        let arguments = both.arguments(|_| true).into_iter();
        arguments.map(|argument| argument.into_string().expect("plain text")).collect()
    }

    #[test]
    fn a_later_value_replaces_an_earlier_one() {
        assert_eq!(arguments(&[("uid", &["1"])], &[("uid", &["2"])]), ["--uid=2"]);
        assert_eq!(arguments(&[("arguments", &["a"])], &[("arguments", &["b"])]), ["--", "b"]);
    }

    #[test]
    fn lists_are_concatenated_and_pairs_replaced_by_name() {
        assert_eq!(arguments(&[("place", &["a"])], &[("place", &["b"])]), ["--place=a", "--place=b"]);
        assert_eq!(
            arguments(&[("cgroup", &["a.x=1", "b.y=2"])], &[("cgroup", &["a.x=3", "a.x=4"])]),
            ["--cgroup=b.y=2", "--cgroup=a.x=3", "--cgroup=a.x=4"]
        );
    }

    #[test]
    fn a_later_key_removes_keys_that_it_excludes() {
        assert_eq!(arguments(&[("netns", &["a"])], &[("new-net-ns", &[])]), ["--new-net-ns"]);
        assert_eq!(arguments(&[("new-net-ns", &[])], &[("netns", &["a"])]), ["--netns=a"]);
        assert_eq!(arguments(&[], &[("netns", &["a"]), ("new-net-ns", &[])]), ["--netns=a", "--new-net-ns"]);
    }
}
