//! The table of flags, and the rules of the command line of Firecracker's jailer.

use std::ffi::OsString;
use std::fmt;

/// One flag.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    /// Whether the next argument is its value.
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

/// All flags, sorted by name. Missing ones are reported in this order.
pub(crate) const FLAGS: &[Flag] = &[
    repeatable(
        "cgroup",
        "Cgroup setting for the jail, as FILE=VALUE, such as cpu.shares=10. May be given several times.",
    ),
    Flag { default: Some("1"), ..value("cgroup-version", "Version of the cgroup interface to use.") },
    Flag {
        default: Some("/srv/jailer"),
        ..value("chroot-base-dir", "Directory in which jails are created.")
    },
    flag("daemonize", "Run in the background, standard streams on /dev/null."),
    required("exec-file", "Executable to run in the jail."),
    required("gid", "Group that the executable runs as."),
    flag("help", "Show the help message."),
    required("id", "Name of the jail."),
    value("netns", "Path of the network namespace to join."),
    flag("new-pid-ns", "Run the executable in a new pid namespace."),
    value(
        "parent-cgroup",
        "Cgroup in which that of the jail is created; the executable's name unless given.",
    ),
    repeatable(
        "resource-limit",
        "Resource limit, as RESOURCE=VALUE. May be given several times. The resources are:\
         \n\t\tfsize: the size in bytes of a file that the executable may create.\
         \n\t\tno-file: the number of file descriptors that the executable may have open.",
    ),
    required("uid", "User that the executable runs as."),
    flag("version", "Print the version."),
];

/// The requested action.
#[derive(Debug)]
pub enum Action<'a> {
    /// Print the help.
    Help,
    /// Print the version.
    Version,
    /// Create a jail.
    Jail(Arguments<'a>),
}

/// The given flags with their values, and the arguments after `--`.
#[derive(Debug)]
pub struct Arguments<'a> {
    flags: Vec<(&'static Flag, &'a str)>,
    /// The arguments after the first `--`, for the VMM.
    pub extra: &'a [OsString],
}

impl<'a> Arguments<'a> {
    /// Whether a flag was given.
    pub fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// The first value of a flag.
    pub fn optional(&self, name: &str) -> Option<&'a str> {
        self.values(name).next()
    }

    /// The value of a required flag.
    pub fn value(&self, name: &str) -> &'a str {
        self.optional(name).unwrap_or_default()
    }

    /// All values of a flag, in their order on the command line.
    pub fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a str> + 's {
        self.flags.iter().filter(move |(flag, _)| flag.name == name).map(|(_, value)| *value)
    }
}

/// An invalid command line.
#[derive(Debug, PartialEq, Eq)]
pub enum FlagError {
    /// A required flag is missing.
    Missing(&'static str),
    /// A flag has no value.
    NoValue(&'static str),
    /// A flag that is not repeatable was given again.
    Twice(&'static str),
    /// An unknown argument, without leading dashes.
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
            Self::Unexpected(argument) => {
                write!(
                    f,
                    "Found argument '{argument}' which wasn't expected, or isn't valid in this context."
                )
            }
        }
    }
}

/// Parses the arguments of a command line, without the program's name.
///
/// # Errors
/// Returns the first mistake from the left; missing flags count last.
pub fn parse(arguments: &[OsString]) -> Result<Action<'_>, FlagError> {
    let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    let (arguments, extra) = (&arguments[..end], arguments.get(end + 1..).unwrap_or_default());
    // Help precedes version, and both precede every error.
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        return Ok(Action::Help);
    }
    if arguments.iter().any(|argument| argument == "--version") {
        return Ok(Action::Version);
    }
    let mut flags: Vec<(&Flag, &str)> = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let flag = known(argument)?;
        if !flag.repeatable && flags.iter().any(|(given, _)| given.name == flag.name) {
            return Err(FlagError::Twice(flag.name));
        }
        let value = if flag.has_value { value_of(flag, arguments.next())? } else { "" };
        flags.push((flag, value));
    }
    match FLAGS.iter().find(|flag| flag.required && !flags.iter().any(|(given, _)| given.name == flag.name)) {
        Some(missing) => Err(FlagError::Missing(missing.name)),
        None => Ok(Action::Jail(Arguments { flags, extra })),
    }
}

fn known(argument: &OsString) -> Result<&'static Flag, FlagError> {
    let text = argument.to_string_lossy();
    let name = text.strip_prefix("--");
    let flag = name.and_then(|name| FLAGS.iter().find(|flag| flag.name == name));
    flag.ok_or_else(|| FlagError::Unexpected(name.unwrap_or(&text).to_owned()))
}

fn value_of<'a>(flag: &Flag, argument: Option<&'a OsString>) -> Result<&'a str, FlagError> {
    match argument {
        Some(argument) if !argument.as_encoded_bytes().starts_with(b"--") => {
            argument.to_str().ok_or_else(|| FlagError::Unexpected(argument.to_string_lossy().into_owned()))
        }
        _ => Err(FlagError::NoValue(flag.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> FlagError {
        let arguments: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
        parse(&arguments).expect_err("the line must be refused")
    }

    const WHOLE: &str = "--id a --exec-file b --uid 1 --gid 2";

    #[test]
    fn the_table_is_sorted_by_name() {
        assert!(FLAGS.windows(2).all(|pair| pair[0].name < pair[1].name));
    }

    #[test]
    fn missing_flags_are_reported_in_alphabetical_order() {
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
            let arguments: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
            assert!(
                matches!((parse(&arguments), help), (Ok(Action::Help), true) | (Ok(Action::Version), false)),
                "{line}"
            );
        }
    }

    #[test]
    fn arguments_after_the_separator_reach_the_vmm_unparsed() {
        let line = format!("{WHOLE} --cgroup a.b=1 --cgroup c.d=2 -- --id -- --help");
        let arguments: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
        let Ok(Action::Jail(given)) = parse(&arguments) else { panic!("a whole command line") };
        assert_eq!(given.extra, ["--id", "--", "--help"]);
        assert_eq!(given.values("cgroup").collect::<Vec<_>>(), ["a.b=1", "c.d=2"]);
        assert_eq!(given.value("id"), "a");
        assert!(!given.has("daemonize"));
    }
}
