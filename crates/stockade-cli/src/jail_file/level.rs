//! What one level says of a jail: the defaults of a file, a jail in it, or the command line. A later level goes
//! before an earlier one.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::keys::{ARGUMENTS, Keys, Shape};

/// Where in a file something is said; `None` on the command line.
pub(super) type Line = Option<usize>;

/// A value, and where it is said.
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

/// What is said of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) line: Line,
    pub(super) content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// The flag without a value, or that it is not there.
    Switch(bool),
    Values(Vec<Value>),
}

/// What is said of a jail, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Level(pub(super) BTreeMap<String, Setting>);

impl Level {
    /// This level with a later one over it: lists add up, where a pair replaces those of its name; everything else
    /// is replaced, and with it what cannot be beside it.
    pub(super) fn overridden_by(mut self, later: &Self, keys: &Keys) -> Self {
        let known = || later.0.iter().filter_map(|(name, setting)| Some((name, setting, keys.get(name)?)));
        // Two of one level that cannot be beside each other are a mistake, which is told later.
        for (_, _, key) in known().filter(|(_, setting, _)| setting.content != Content::Switch(false)) {
            self.0.retain(|earlier, _| !key.conflicts.contains(earlier));
        }
        for (name, setting, key) in known() {
            let mut setting = setting.clone();
            if let (true, Some(earlier)) = (key.adds_up(), self.0.remove(name)) {
                setting.content = added(earlier.content, setting.content, key.shape == Shape::Pairs);
            }
            self.0.insert(name.clone(), setting);
        }
        self
    }

    /// This level with every text of a file changed in this way.
    pub(super) fn map_texts(&self, change: impl Fn(&str) -> String) -> Self {
        let mut changed = self.clone();
        for setting in changed.0.values_mut() {
            let Content::Values(values) = &mut setting.content else { continue };
            for value in values.iter_mut().filter(|value| value.line.is_some()) {
                // All that a file has is text.
                if let Some(text) = value.text.to_str() {
                    value.text = change(text).into();
                }
            }
        }
        changed
    }

    /// The only value of a key.
    pub(super) fn single(&self, name: &str) -> Option<&Value> {
        match &self.0.get(name)?.content {
            Content::Values(values) => values.first(),
            Content::Switch(_) => None,
        }
    }

    /// The words of a command line that says the same, for a command that knows the keys for which `knows` is true.
    pub(super) fn words(&self, knows: impl Fn(&str) -> bool) -> Vec<OsString> {
        let mut words = Vec::new();
        for (name, setting) in self.0.iter().filter(|(name, _)| *name != ARGUMENTS && knows(name)) {
            match &setting.content {
                Content::Switch(on) => words.extend(on.then(|| format!("--{name}").into())),
                // With an equals sign, so that a value may begin with a dash.
                Content::Values(values) => words.extend(values.iter().map(|value| {
                    let mut word = OsString::from(format!("--{name}="));
                    word.push(&value.text);
                    word
                })),
            }
        }
        if let Some(Setting { content: Content::Values(values), .. }) = self.0.get(ARGUMENTS) {
            words.push("--".into());
            words.extend(values.iter().map(|value| value.text.clone()));
        }
        words
    }
}

fn added(earlier: Content, later: Content, pairs: bool) -> Content {
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

    fn words(earlier: &[(&str, &[&str])], later: &[(&str, &[&str])]) -> Vec<String> {
        let both = level(earlier).overridden_by(&level(later), &Keys::all());
        both.words(|_| true).into_iter().map(|word| word.into_string().expect("plain text")).collect()
    }

    #[test]
    fn a_later_value_replaces_an_earlier_one() {
        assert_eq!(words(&[("uid", &["1"])], &[("uid", &["2"])]), ["--uid=2"]);
        assert_eq!(words(&[("arguments", &["a"])], &[("arguments", &["b"])]), ["--", "b"]);
    }

    #[test]
    fn lists_add_up_and_pairs_replace_those_of_their_name() {
        assert_eq!(words(&[("place", &["a"])], &[("place", &["b"])]), ["--place=a", "--place=b"]);
        assert_eq!(
            words(&[("cgroup", &["a.x=1", "b.y=2"])], &[("cgroup", &["a.x=3", "a.x=4"])]),
            ["--cgroup=b.y=2", "--cgroup=a.x=3", "--cgroup=a.x=4"]
        );
    }

    #[test]
    fn what_cannot_be_beside_a_later_key_goes() {
        assert_eq!(words(&[("netns", &["a"])], &[("new-net-ns", &[])]), ["--new-net-ns"]);
        assert_eq!(words(&[("new-net-ns", &[])], &[("netns", &["a"])]), ["--netns=a"]);
        assert_eq!(words(&[], &[("netns", &["a"]), ("new-net-ns", &[])]), ["--netns=a", "--new-net-ns"]);
    }
}
