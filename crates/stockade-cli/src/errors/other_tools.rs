//! Words and flags that other tools have taught people, and what is told of each.

use glob::Pattern;

/// Commands of docker, podman, systemctl and kubectl.
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
    (&["restart"], "a jail has one VMM: 'rm --force' it, and 'run' it anew"),
    (&["pause", "unpause", "freeze", "thaw"], "stockade pauses no VMM; its own API may"),
    (&["attach"], "what a VMM writes is told by 'logs -f'; 'shell' goes into the jail"),
    (
        &["build", "commit", "image", "images", "load", "pull", "push", "rmi", "save", "tag"],
        "there are no images: files of the host are placed",
    ),
];

/// The commands that hand words on to a VMM.
pub(super) const TAKES_VMM_ARGUMENTS: &[&str] = &["run", "create", "start", "plan"];
const TAKES_JAIL: &[&str] = &["run", "create", "plan"];
const TAKES_JAILS: &[&str] = &["start", "stop", "kill", "wait", "rm", "inspect", "audit"];
const EXEC_COMMANDS: &[&str] = &["exec", "shell"];
const ALL: &[&str] = &[];

/// A way to write a flag that is not stockade's.
struct ForeignUsage {
    /// The commands that it is told of; all if none is named.
    commands: &'static [&'static str],
    /// Patterns of words that follow each other, the last of which is what the command line stumbled on.
    words: &'static [&'static str],
    /// What is told, with `{1}` for the first of the words, and so on.
    hint: &'static str,
}

const fn hint(
    commands: &'static [&'static str],
    words: &'static [&'static str],
    hint: &'static str,
) -> ForeignUsage {
    ForeignUsage { commands, words, hint }
}

/// The first that fits is told. A flag that some VMM has is none of them: `--memory`, `--cpus`, `--net`.
const FLAGS: &[ForeignUsage] = &[
    hint(&["kill"], &["-[0-9A-Z]*"], "a signal is given as -s 9 or -s KILL"),
    hint(&["logs"], &["--tail*"], "did you mean '-n N'?"),
    hint(EXEC_COMMANDS, &["-[it]*"], TERMINAL),
    hint(EXEC_COMMANDS, &["--interactive"], TERMINAL),
    hint(EXEC_COMMANDS, &["--tty"], TERMINAL),
    hint(EXEC_COMMANDS, &["-e*"], "did you mean '--env NAME=VALUE'?"),
    hint(EXEC_COMMANDS, &["-u*"], "a visitor is who the VMM is, or root with --root"),
    hint(EXEC_COMMANDS, &["--user*"], "a visitor is who the VMM is, or root with --root"),
    hint(TAKES_VMM_ARGUMENTS, &["-it"], TERMINAL),
    hint(TAKES_VMM_ARGUMENTS, &["-i"], TERMINAL),
    hint(TAKES_VMM_ARGUMENTS, &["-t"], TERMINAL),
    hint(TAKES_VMM_ARGUMENTS, &["--ready", "*.sock*"], "a socket is joined to its flag: {1}={2}"),
    hint(TAKES_VMM_ARGUMENTS, &["--ready", "*.sock*", "*"], "a socket is joined to its flag: {1}={2}"),
    hint(TAKES_VMM_ARGUMENTS, &["--ready", "*", "*.sock*"], "a socket is joined to its flag: {1}={3}"),
    hint(TAKES_VMM_ARGUMENTS, &["-e"], NO_ENVIRONMENT),
    hint(TAKES_VMM_ARGUMENTS, &["--env*"], NO_ENVIRONMENT),
    hint(TAKES_JAIL, &["--volume*"], PLACE),
    hint(TAKES_JAIL, &["--mount*"], PLACE),
    hint(TAKES_JAIL, &["-v", "*:*"], "files are placed by --place SRC=NAME; -v is --verbose"),
    hint(TAKES_JAIL, &["--name*"], "did you mean '--id'?"),
    hint(TAKES_JAIL, &["--user"], "did you mean '--uid' and '--gid'?"),
    hint(TAKES_JAIL, &["--network*"], "did you mean '--netns'?"),
    hint(&["run"], &["--rm"], "run removes its jail by itself, unless it is detached"),
    hint(TAKES_JAIL, &["*.toml"], "did you mean '-f {1}'?"),
    hint(TAKES_JAILS, &["*.toml"], "did you mean '--file {1}'?"),
    hint(ALL, &["-*", "-[0-9]*"], "{1} takes no negative number"),
];

const TERMINAL: &str = "a terminal is taken as it is: leave it out";
const NO_ENVIRONMENT: &str = "a VMM has an empty environment";
const PLACE: &str = "did you mean '--place SRC=NAME'?";

/// What is told of a command of another tool's.
pub(super) fn command(word: &str) -> Option<&'static str> {
    COMMANDS.iter().find(|(words, _)| words.contains(&word)).map(|(_, hint)| *hint)
}

/// What is told of words that another tool takes so.
///
/// # Arguments
/// `wrong` is what the parser stumbled on, which of several short flags in one word is the first that it does not know.
pub(super) fn flag(command: &str, words: &[String], wrong: &str) -> Option<String> {
    FLAGS.iter().find_map(|usage| usage.hint_for(command, words, wrong))
}

impl ForeignUsage {
    fn hint_for(&self, command: &str, words: &[String], wrong: &str) -> Option<String> {
        if !self.commands.is_empty() && !self.commands.contains(&command) {
            return None;
        }
        let found = words.windows(self.words.len()).find(|words| self.fits(words, wrong))?;
        let filled =
            |text: String, (number, word): (usize, &String)| text.replace(&format!("{{{number}}}"), word);
        Some((1..).zip(found).fold(self.hint.to_owned(), filled))
    }

    fn fits(&self, words: &[String], wrong: &str) -> bool {
        let like = |(pattern, word): (&&str, &String)| Pattern::new(pattern).is_ok_and(|it| it.matches(word));
        words.last().is_some_and(|last| last.starts_with(wrong)) && self.words.iter().zip(words).all(like)
    }
}

/// Checks that what is told of other tools' words hides no command of ours.
#[cfg(test)]
pub(crate) fn check_words(cli: &clap::Command) {
    let names: Vec<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
    for (words, _) in COMMANDS {
        assert!(!words.iter().any(|word| names.contains(word)), "{words:?}");
    }
    for usage in FLAGS {
        assert!(usage.commands.iter().all(|command| names.contains(command)), "{}", usage.hint);
        let patterns = usage.words.iter().map(|pattern| Pattern::new(pattern));
        assert!(patterns.filter(Result::is_err).count() == 0, "{:?}", usage.words);
    }
}
