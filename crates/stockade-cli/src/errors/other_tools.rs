//! Commands and arguments of other tools, and stockade's equivalents.

use std::path::Path;

use glob::Pattern;

use super::foreign_flags::{self, DESCRIBE_JAIL, TAKE_VMM_ARGUMENTS};

/// Commands of docker, podman, systemctl and kubectl, with the hint for each.
const COMMANDS: &[(&[&str], &str)] = &[
    (&["ls", "list", "get"], "did you mean 'ps'?"),
    (&["launch"], "did you mean 'run'?"),
    (&["enter", "login", "ssh", "console", "nsenter"], "did you mean 'shell'?"),
    (&["state"], "did you mean 'inspect'?"),
    (&["checkpoint", "restore", "snapshot"], "stockade stores no VMM; use the VMM's own API"),
    (&["port", "network"], "stockade sets up no network; use --netns, and `ip` for the namespace"),
    (&["volume"], "stockade has no volumes; use --place for files of the host"),
    (&["delete", "remove", "destroy"], "did you mean 'rm'?"),
    (&["status", "show", "describe"], "did you mean 'ps' or 'inspect'?"),
    (&["prune", "clean", "cleanup"], "did you mean 'gc'?"),
    (&["stats"], "did you mean 'top'?"),
    (&["info"], "did you mean 'inspect', or 'doctor' for this host?"),
    (&["cp", "copy", "mount"], "did you mean 'place'?"),
    (&["up", "apply"], "did you mean 'run -f FILE'?"),
    (&["down"], "did you mean 'rm --force --file FILE'?"),
    (&["restart"], "use `rm --force` and then `run`: a jail runs one VMM"),
    (&["pause", "unpause", "freeze", "thaw"], "stockade pauses no VMM; use the VMM's own API"),
    (&["attach"], "use `logs -f` to follow the VMM's output, or `shell` to enter the jail"),
    (
        &["build", "commit", "image", "images", "load", "pull", "push", "rmi", "save", "tag"],
        "stockade has no images; use --place for files of the host",
    ),
];

const TAKES_JAILS: &[&str] = &["start", "stop", "kill", "wait", "rm", "inspect", "audit"];
const ALL: &[&str] = &[];

/// Consecutive arguments that other tools accept.
struct ForeignUsage {
    /// The commands with this hint; empty for all.
    commands: &'static [&'static str],
    /// Patterns of the arguments. The parser failed at the last one.
    arguments: &'static [&'static str],
    /// `{1}` stands for the first of the arguments, and so on.
    hint: &'static str,
}

const fn usage(
    commands: &'static [&'static str],
    arguments: &'static [&'static str],
    hint: &'static str,
) -> ForeignUsage {
    ForeignUsage { commands, arguments, hint }
}

/// The first match applies.
const USAGES: &[ForeignUsage] = &[
    usage(&["kill"], &["-[0-9A-Z]*"], "use -s 9 or -s KILL for a signal"),
    usage(TAKE_VMM_ARGUMENTS, &["--ready", "*.sock*"], "use {1}={2} for a socket"),
    usage(TAKE_VMM_ARGUMENTS, &["--ready", "*.sock*", "*"], "use {1}={2} for a socket"),
    usage(TAKE_VMM_ARGUMENTS, &["--ready", "*", "*.sock*"], "use {1}={3} for a socket"),
    usage(DESCRIBE_JAIL, &["-v", "*:*"], "use --place SRC=NAME for files; -v is --verbose"),
    usage(DESCRIBE_JAIL, &["*.toml"], "did you mean '-f {1}'?"),
    usage(TAKES_JAILS, &["*.toml"], "did you mean '--file {1}'?"),
    usage(&["ps"], &["[!-]*"], "use --filter 'id={1}'"),
    usage(&["shell"], &["[!-]*"], "use `stockade exec` to run a program other than the shell"),
    usage(ALL, &["-*", "-[0-9]*"], "{1} takes no negative number"),
    usage(&["logs"], &["-[0-9]*"], "use -n N for the last lines"),
];

/// Flags whose value is a pair with an equals sign.
const PAIRS: [&str; 5] = ["--cgroup", "--resource-limit", "--place", "--env", "--filter"];

/// The hint for a command of another tool.
pub(super) fn command(name: &str) -> Option<String> {
    let known = COMMANDS.iter().find(|(names, _)| names.contains(&name)).map(|(_, hint)| (*hint).to_owned());
    known.or_else(|| match name {
        file if Path::new(file).extension().is_some_and(|extension| extension == "toml") => {
            Some(format!("did you mean 'run -f {file}'?"))
        }
        file if file.contains('/') => Some(format!("did you mean 'run --id ID --exec-file {file}'?")),
        _ => None,
    })
}

/// The hint for an argument that another tool would accept.
///
/// # Arguments
/// `wrong`: the argument at which the parser failed. Of combined short flags, this is the first unknown one.
pub(super) fn argument(command: &str, arguments: &[String], wrong: &str) -> Option<String> {
    let pair = || divided_pair(arguments, wrong);
    let usage = || USAGES.iter().find_map(|usage| usage.hint_for(command, arguments, wrong));
    let flag = || foreign_flags::hint(command, arguments, wrong).filter(|_| wrong.starts_with('-'));
    pair().or_else(usage).or_else(flag)
}

/// The hint for `NAME VALUE` in place of `NAME=VALUE`, of which the parser takes the value for another argument.
fn divided_pair(arguments: &[String], wrong: &str) -> Option<String> {
    let at = arguments.iter().position(|argument| argument == wrong && !wrong.starts_with('-'))?;
    let before = &arguments[..at];
    let (flag, name) = PAIRS.into_iter().find_map(|flag| match before {
        [.., last, name] if last == flag => Some((flag, name.as_str())),
        [.., name] => Some((flag, name.strip_prefix(flag)?.strip_prefix('=')?)),
        [] => None,
    })?;
    (!name.contains('=')).then(|| format!("did you mean '{flag} {name}={wrong}'?"))
}

impl ForeignUsage {
    fn hint_for(&self, command: &str, arguments: &[String], wrong: &str) -> Option<String> {
        if !self.commands.is_empty() && !self.commands.contains(&command) {
            return None;
        }
        let found =
            arguments.windows(self.arguments.len()).find(|arguments| self.matches(arguments, wrong))?;
        let filled = |text: String, (number, argument): (usize, &String)| {
            text.replace(&format!("{{{number}}}"), argument)
        };
        Some((1..).zip(found).fold(self.hint.to_owned(), filled))
    }

    fn matches(&self, arguments: &[String], wrong: &str) -> bool {
        let matches = |(pattern, argument): (&&str, &String)| {
            Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(argument))
        };
        arguments.last().is_some_and(|last| last.starts_with(wrong))
            && self.arguments.iter().zip(arguments).all(matches)
    }
}

/// Checks that no hint hides one of stockade's commands.
#[cfg(test)]
pub(crate) fn check_words(cli: &clap::Command) {
    let names: Vec<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
    for (foreign, _) in COMMANDS {
        assert!(!foreign.iter().any(|name| names.contains(name)), "{foreign:?}");
    }
    foreign_flags::check_flags(cli);
    for usage in USAGES {
        assert!(usage.commands.iter().all(|command| names.contains(command)), "{}", usage.hint);
        let patterns = usage.arguments.iter().map(|pattern| Pattern::new(pattern));
        assert!(patterns.filter(Result::is_err).count() == 0, "{:?}", usage.arguments);
    }
}
