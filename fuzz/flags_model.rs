//! A model of the jailer's command line, and a comparison with the parser.
//!
//! The model is written from the rules of Firecracker's jailer and shares no code with the parser. On stable Rust the
//! comparison runs as a property test of the jailer.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use jailer::flags::{Action, parse};

/// The outcome of a command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The help text is printed.
    Help,
    /// The version is printed.
    Version,
    /// The command line is refused with this message.
    Refused(String),
    /// A jail is created: the values of each flag (empty for a flag without a value), and the VMM's arguments.
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

/// The flags without a value, except `--help` and `--version`.
pub(crate) const BARE: [&str; 2] = ["daemonize", "new-pid-ns"];

/// The required flags, in the order in which missing ones are reported.
const REQUIRED: [&str; 4] = ["exec-file", "gid", "id", "uid"];

/// The outcome of these arguments by the model.
pub(crate) fn model(arguments: &[OsString]) -> Outcome {
    let mut own = Vec::new();
    let mut extra = arguments.iter();
    for argument in extra.by_ref() {
        if argument == "--" {
            break;
        }
        own.push(argument);
    }
    let has = |name: &str| own.iter().any(|argument| *argument == name);
    if has("--help") || has("-h") {
        return Outcome::Help;
    }
    if has("--version") {
        return Outcome::Version;
    }
    match read(&own) {
        Err(message) => Outcome::Refused(message),
        Ok(flags) => match REQUIRED.iter().find(|name| !flags.contains_key(**name)) {
            Some(name) => Outcome::Refused(format!("Argument '{name}' required, but not found.")),
            None => Outcome::Jail(flags, extra.cloned().collect()),
        },
    }
}

fn read(arguments: &[&OsString]) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut flags: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut at = 0;
    while at < arguments.len() {
        let argument = String::from_utf8_lossy(arguments[at].as_bytes()).into_owned();
        let name = argument.strip_prefix("--").unwrap_or(&argument).to_owned();
        let takes_value = VALUED.contains(&name.as_str());
        if argument == name || !(takes_value || BARE.contains(&name.as_str())) {
            return Err(unexpected(&name));
        }
        if flags.contains_key(&name) && name != "cgroup" && name != "resource-limit" {
            return Err(format!("The argument '{name}' was provided more than once."));
        }
        let mut value = String::new();
        if takes_value {
            at += 1;
            let given = arguments.get(at).filter(|next| !next.as_bytes().starts_with(b"--"));
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

/// The outcome of these arguments by the parser.
pub(crate) fn parser(arguments: &[OsString]) -> Outcome {
    match parse(arguments) {
        Ok(Action::Help) => Outcome::Help,
        Ok(Action::Version) => Outcome::Version,
        Err(error) => Outcome::Refused(error.to_string()),
        Ok(Action::Jail(given)) => {
            let names = VALUED.iter().chain(&BARE).filter(|name| given.has(name));
            let values = |name: &str| given.values(name).map(str::to_owned).collect();
            Outcome::Jail(
                names.map(|name| ((*name).to_owned(), values(name))).collect(),
                given.extra.to_vec(),
            )
        }
    }
}

/// Compares parser and model on the arguments in `data`, which are separated by NUL.
///
/// # Panics
/// Panics if the outcomes differ.
pub(crate) fn fuzz_one(data: &[u8]) {
    let arguments: Vec<OsString> = data
        .split(|byte| *byte == 0)
        .map(|argument| std::ffi::OsStr::from_bytes(argument).to_owned())
        .collect();
    assert_eq!(parser(&arguments), model(&arguments), "{arguments:?}");
}
