//! The flags, as a table, and the rules of the original's command line.

use std::ffi::OsString;
use std::fmt;

/// One flag.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    /// Whether the next word is its value.
    pub(crate) has_value: bool,
    pub(crate) repeatable: bool,
    pub(crate) required: bool,
    pub(crate) default: Option<&'static str>,
    pub(crate) help: &'static str,
}

const fn flag(name: &'static str, help: &'static str) -> Flag {
    Flag { name, has_value: false, repeatable: false, required: false, default: None, help }
}

const fn value(name: &'static str, help: &'static str) -> Flag {
    Flag { has_value: true, ..flag(name, help) }
}

const fn required(name: &'static str, help: &'static str) -> Flag {
    Flag { required: true, ..value(name, help) }
}

const fn repeatable(name: &'static str, help: &'static str) -> Flag {
    Flag { repeatable: true, ..value(name, help) }
}

/// Every flag, by name: that is also the order in which missing ones are reported.
pub(crate) const FLAGS: &[Flag] = &[
    repeatable(
        "cgroup",
        "Cgroup setting for the jail, as FILE=VALUE, such as cpu.shares=10. May be given several times.",
    ),
    Flag { default: Some("1"), ..value("cgroup-version", "Version of the cgroup interface to use.") },
    Flag { default: Some("/srv/jailer"), ..value("chroot-base-dir", "Directory in which jails are made.") },
    flag("daemonize", "Run in the background, standard streams on /dev/null."),
    required("exec-file", "Executable to run in the jail."),
    required("gid", "Group that the executable runs as."),
    flag("help", "Show the help message."),
    required("id", "Name of the jail."),
    value("netns", "Path of the network namespace to join."),
    flag("new-pid-ns", "Run the executable in a new pid namespace."),
    value("parent-cgroup", "Cgroup in which that of the jail is made; the executable's name unless given."),
    repeatable(
        "resource-limit",
        "Resource limit, as fsize=BYTES or no-file=COUNT. May be given several times.",
    ),
    required("uid", "User that the executable runs as."),
    flag("version", "Print the version."),
];

/// What the command line asks for.
#[derive(Debug)]
pub enum Asked<'a> {
    /// What the flags are.
    Help,
    /// Which version this is.
    Version,
    /// A jail.
    Jail(Given<'a>),
}

/// The flags that were given, with their values, and the words behind `--`.
#[derive(Debug)]
pub struct Given<'a> {
    flags: Vec<(&'static Flag, &'a str)>,
    /// The words behind the first `--`, for the VMM.
    pub extra: &'a [OsString],
}

impl<'a> Given<'a> {
    /// Whether a flag was given.
    pub fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// The value of a flag, the first if it was given several times.
    pub fn optional(&self, name: &str) -> Option<&'a str> {
        self.values(name).next()
    }

    /// The value of a required flag.
    pub fn value(&self, name: &str) -> &'a str {
        self.optional(name).unwrap_or_default()
    }

    /// Every value of a flag, in the order given.
    pub fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a str> + 's {
        self.flags.iter().filter(move |(flag, _)| flag.name == name).map(|(_, value)| *value)
    }
}

/// What is wrong with the command line.
#[derive(Debug, PartialEq, Eq)]
pub enum FlagError {
    /// A required flag was not given.
    Missing(&'static str),
    /// A flag has no value.
    NoValue(&'static str),
    /// A flag that may be given once was given again.
    Twice(&'static str),
    /// A word that is no flag; a flag's name without its dashes.
    Unexpected(String),
}

impl fmt::Display for FlagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "Argument '{name}' required, but not found."),
            Self::NoValue(name) => {
                write!(f, "The argument '{name}' requires a value, but none was supplied.")
            }
            Self::Twice(name) => write!(f, "The argument '{name}' was provided more than once."),
            Self::Unexpected(word) => {
                write!(f, "Found argument '{word}' which wasn't expected, or isn't valid in this context.")
            }
        }
    }
}

/// Reads the words of a command line, the program's name not among them.
///
/// # Errors
/// The first mistake, reading from the left; what is missing counts last.
pub fn parse(words: &[OsString]) -> Result<Asked<'_>, FlagError> {
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let (words, extra) = (&words[..end], words.get(end + 1..).unwrap_or_default());
    // Help wins over version, and both over every error.
    if words.iter().any(|word| word == "--help" || word == "-h") {
        return Ok(Asked::Help);
    }
    if words.iter().any(|word| word == "--version") {
        return Ok(Asked::Version);
    }
    let mut flags: Vec<(&Flag, &str)> = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let flag = known(word)?;
        if !flag.repeatable && flags.iter().any(|(given, _)| given.name == flag.name) {
            return Err(FlagError::Twice(flag.name));
        }
        let value = if flag.has_value { value_of(flag, words.next())? } else { "" };
        flags.push((flag, value));
    }
    match FLAGS.iter().find(|flag| flag.required && !flags.iter().any(|(given, _)| given.name == flag.name)) {
        Some(missing) => Err(FlagError::Missing(missing.name)),
        None => Ok(Asked::Jail(Given { flags, extra })),
    }
}

fn known(word: &OsString) -> Result<&'static Flag, FlagError> {
    let text = word.to_string_lossy();
    let name = text.strip_prefix("--");
    let flag = name.and_then(|name| FLAGS.iter().find(|flag| flag.name == name));
    flag.ok_or_else(|| FlagError::Unexpected(name.unwrap_or(&text).to_owned()))
}

fn value_of<'a>(flag: &Flag, word: Option<&'a OsString>) -> Result<&'a str, FlagError> {
    match word {
        Some(word) if !word.as_encoded_bytes().starts_with(b"--") => {
            word.to_str().ok_or_else(|| FlagError::Unexpected(word.to_string_lossy().into_owned()))
        }
        _ => Err(FlagError::NoValue(flag.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> FlagError {
        let words: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
        parse(&words).expect_err("the line must be refused")
    }

    const WHOLE: &str = "--id a --exec-file b --uid 1 --gid 2";

    #[test]
    fn the_table_is_sorted_by_name() {
        assert!(FLAGS.windows(2).all(|pair| pair[0].name < pair[1].name));
    }

    #[test]
    fn required_flags_are_missed_in_alphabetical_order() {
        assert_eq!(error(""), FlagError::Missing("exec-file"));
        assert_eq!(error("--exec-file x"), FlagError::Missing("gid"));
        assert_eq!(error("--exec-file x --gid 1 --uid 1"), FlagError::Missing("id"));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(error("--id"), FlagError::NoValue("id"));
        assert_eq!(error("--id --uid"), FlagError::NoValue("id"));
        assert_eq!(error("--id a --id b"), FlagError::Twice("id"));
        assert_eq!(error("--colour"), FlagError::Unexpected("colour".into()));
        assert_eq!(error("--id=a"), FlagError::Unexpected("id=a".into()));
        assert_eq!(error("word"), FlagError::Unexpected("word".into()));
    }

    #[test]
    fn help_wins_over_version_and_errors() {
        for (line, help) in
            [("--colour -h --version", true), ("--version --help", true), ("x --version", false)]
        {
            let words: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
            assert!(
                matches!((parse(&words), help), (Ok(Asked::Help), true) | (Ok(Asked::Version), false)),
                "{line}"
            );
        }
    }

    #[test]
    fn what_follows_two_dashes_goes_to_the_vmm_unread() {
        let line = format!("{WHOLE} --cgroup a.b=1 --cgroup c.d=2 -- --id -- --help");
        let words: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
        let Ok(Asked::Jail(given)) = parse(&words) else { panic!("a whole command line") };
        assert_eq!(given.extra, ["--id", "--", "--help"]);
        assert_eq!(given.values("cgroup").collect::<Vec<_>>(), ["a.b=1", "c.d=2"]);
        assert_eq!(given.value("id"), "a");
        assert!(!given.has("daemonize"));
    }
}
