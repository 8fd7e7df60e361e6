//! A model of the jailer's command line, told again from the original's rules and sharing nothing with the
//! parser, and a comparison of the two.
//!
//! Without a nightly compiler the comparison runs on stable as a property test of the jailer.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use jailer::flags::{Asked, parse};

/// What comes of a command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The help text.
    Help,
    /// The version.
    Version,
    /// This message.
    Refused(String),
    /// A jail: the values of each flag (one that takes none has an empty one), and the VMM's arguments.
    Jail(BTreeMap<String, Vec<String>>, Vec<OsString>),
}

/// The flags that take a value.
pub(crate) const VALUED: [&str; 10] = [
    "cgroup",
    "cgroup-version",
    "chroot-base-dir",
    "exec-file",
    "gid",
    "id",
    "netns",
    "parent-cgroup",
    "resource-limit",
    "uid",
];

/// Those that take none, besides the two that end everything.
pub(crate) const BARE: [&str; 2] = ["daemonize", "new-pid-ns"];

/// Those that must be there, in the order in which they are missed.
const REQUIRED: [&str; 4] = ["exec-file", "gid", "id", "uid"];

/// What should come of these words.
pub(crate) fn model(words: &[OsString]) -> Outcome {
    let mut ours = Vec::new();
    let mut theirs = words.iter();
    for word in theirs.by_ref() {
        if word == "--" {
            break;
        }
        ours.push(word);
    }
    let is_there = |name: &str| ours.iter().any(|word| *word == name);
    if is_there("--help") || is_there("-h") {
        return Outcome::Help;
    }
    if is_there("--version") {
        return Outcome::Version;
    }
    match read(&ours) {
        Err(message) => Outcome::Refused(message),
        Ok(flags) => match REQUIRED.iter().find(|name| !flags.contains_key(**name)) {
            Some(name) => Outcome::Refused(format!("Argument '{name}' required, but not found.")),
            None => Outcome::Jail(flags, theirs.cloned().collect()),
        },
    }
}

fn read(words: &[&OsString]) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut flags: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut at = 0;
    while at < words.len() {
        let word = String::from_utf8_lossy(words[at].as_bytes()).into_owned();
        let name = word.strip_prefix("--").unwrap_or(&word).to_owned();
        let takes_value = VALUED.contains(&name.as_str());
        if word == name || !(takes_value || BARE.contains(&name.as_str())) {
            return Err(unexpected(&name));
        }
        if flags.contains_key(&name) && name != "cgroup" && name != "resource-limit" {
            return Err(format!("The argument '{name}' was provided more than once."));
        }
        let mut value = String::new();
        if takes_value {
            at += 1;
            let given = words.get(at).filter(|next| !next.as_bytes().starts_with(b"--"));
            let given = given
                .ok_or_else(|| format!("The argument '{name}' requires a value, but none was supplied."))?;
            match given.to_str() {
                Some(text) => value.push_str(text),
                None => return Err(unexpected(&given.to_string_lossy())),
            }
        }
        flags.entry(name).or_default().push(value);
        at += 1;
    }
    Ok(flags)
}

fn unexpected(name: &str) -> String {
    format!("Found argument '{name}' which wasn't expected, or isn't valid in this context.")
}

/// What the parser makes of these words, in the model's terms.
pub(crate) fn parser(words: &[OsString]) -> Outcome {
    match parse(words) {
        Ok(Asked::Help) => Outcome::Help,
        Ok(Asked::Version) => Outcome::Version,
        Err(error) => Outcome::Refused(error.to_string()),
        Ok(Asked::Jail(given)) => {
            let names = VALUED.iter().chain(&BARE).filter(|name| given.has(name));
            let values = |name: &str| given.values(name).map(str::to_owned).collect();
            Outcome::Jail(
                names.map(|name| ((*name).to_owned(), values(name))).collect(),
                given.extra.to_vec(),
            )
        }
    }
}

/// Compares parser and model on the words that `data` is, each ended by a NUL.
///
/// # Panics
/// If they differ.
pub(crate) fn fuzz_one(data: &[u8]) {
    let words: Vec<OsString> =
        data.split(|byte| *byte == 0).map(|word| std::ffi::OsStr::from_bytes(word).to_owned()).collect();
    assert_eq!(parser(&words), model(&words), "{words:?}");
}
