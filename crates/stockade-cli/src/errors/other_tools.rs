//! Commands and flags of other tools, and stockade's equivalents.

use glob::Pattern;

/// Commands of docker, podman, systemctl and kubectl, with the hint for each.
const COMMANDS: &[(&[&str], &str)] = &[
    (&["ls", "list", "get"], "did you mean 'ps'?"),
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

/// Commands that pass arguments to a VMM.
pub(super) const TAKES_VMM_ARGUMENTS: &[&str] = &["run", "create", "start", "plan"];
const TAKES_JAIL: &[&str] = &["run", "create", "plan"];
const TAKES_JAILS: &[&str] = &["start", "stop", "kill", "wait", "rm", "inspect", "audit"];
const EXEC_COMMANDS: &[&str] = &["exec", "shell"];
const ALL: &[&str] = &[];

/// A way to write a flag that stockade does not have.
struct ForeignUsage {
    /// The commands with this hint; empty for all.
    commands: &'static [&'static str],
    /// Patterns of consecutive arguments. The parser failed at the last one.
    arguments: &'static [&'static str],
    /// `{1}` stands for the first of the arguments, and so on.
    hint: &'static str,
}

const fn hint(
    commands: &'static [&'static str],
    arguments: &'static [&'static str],
    hint: &'static str,
) -> ForeignUsage {
    ForeignUsage { commands, arguments, hint }
}

/// The first match applies. Flags that a VMM may have are left out: `--memory`, `--cpus`, `--net`.
const FLAGS: &[ForeignUsage] = &[
    hint(&["kill"], &["-[0-9A-Z]*"], "use -s 9 or -s KILL for a signal"),
    hint(&["logs"], &["--tail*"], "did you mean '-n N'?"),
    hint(EXEC_COMMANDS, &["-[it]*"], TERMINAL),
    hint(EXEC_COMMANDS, &["--interactive"], TERMINAL),
    hint(EXEC_COMMANDS, &["--tty"], TERMINAL),
    hint(EXEC_COMMANDS, &["-e*"], "did you mean '--env NAME=VALUE'?"),
    hint(EXEC_COMMANDS, &["-u*"], EXEC_USER),
    hint(EXEC_COMMANDS, &["--user*"], EXEC_USER),
    hint(TAKES_VMM_ARGUMENTS, &["-it"], TERMINAL),
    hint(TAKES_VMM_ARGUMENTS, &["-i"], TERMINAL),
    hint(TAKES_VMM_ARGUMENTS, &["-t"], TERMINAL),
    hint(TAKES_VMM_ARGUMENTS, &["--ready", "*.sock*"], "use {1}={2} for a socket"),
    hint(TAKES_VMM_ARGUMENTS, &["--ready", "*.sock*", "*"], "use {1}={2} for a socket"),
    hint(TAKES_VMM_ARGUMENTS, &["--ready", "*", "*.sock*"], "use {1}={3} for a socket"),
    hint(TAKES_VMM_ARGUMENTS, &["-e"], NO_ENVIRONMENT),
    hint(TAKES_VMM_ARGUMENTS, &["--env*"], NO_ENVIRONMENT),
    hint(TAKES_JAIL, &["--volume*"], PLACE),
    hint(TAKES_JAIL, &["--mount*"], PLACE),
    hint(TAKES_JAIL, &["-v", "*:*"], "use --place SRC=NAME for files; -v is --verbose"),
    hint(TAKES_JAIL, &["--name*"], "did you mean '--id'?"),
    hint(TAKES_JAIL, &["--user"], "did you mean '--uid' and '--gid'?"),
    hint(TAKES_JAIL, &["--network*"], "did you mean '--netns'?"),
    hint(&["run"], &["--rm"], "remove this flag: `run` removes its jail unless it is detached"),
    hint(TAKES_JAIL, &["*.toml"], "did you mean '-f {1}'?"),
    hint(TAKES_JAILS, &["*.toml"], "did you mean '--file {1}'?"),
    hint(ALL, &["-*", "-[0-9]*"], "{1} takes no negative number"),
];

const TERMINAL: &str = "stockade attaches the terminal automatically; remove this flag";
const EXEC_USER: &str = "exec runs as the VMM's user; use --root for root";
const NO_ENVIRONMENT: &str = "a VMM has an empty environment; remove this flag";
const PLACE: &str = "did you mean '--place SRC=NAME'?";

/// The hint for a command of another tool.
pub(super) fn command(name: &str) -> Option<&'static str> {
    COMMANDS.iter().find(|(names, _)| names.contains(&name)).map(|(_, hint)| *hint)
}

/// The hint for a flag of another tool.
///
/// # Arguments
/// `wrong`: the argument at which the parser failed. Of combined short flags, this is the first unknown one.
pub(super) fn flag(command: &str, arguments: &[String], wrong: &str) -> Option<String> {
    FLAGS.iter().find_map(|usage| usage.hint_for(command, arguments, wrong))
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
    for usage in FLAGS {
        assert!(usage.commands.iter().all(|command| names.contains(command)), "{}", usage.hint);
        let patterns = usage.arguments.iter().map(|pattern| Pattern::new(pattern));
        assert!(patterns.filter(Result::is_err).count() == 0, "{:?}", usage.arguments);
    }
}
