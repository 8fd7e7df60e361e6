//! `stockade completions`: the script by which a shell completes commands, flags, jails and profiles.
//!
//! The script knows nothing itself: at each TAB it runs `stockade` with [`ASKED`] set, which answers from the same
//! table that it reads its command line by.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, Args, Command, CommandFactory, ValueEnum};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter};
use clap_complete::env::{Bash, EnvCompleter, Fish, Shells, Zsh};
use stockade::Store;
use stockade::spec::{DEFAULT_PROFILE_DIRECTORY, Profiles};

use crate::args::Cli;
use crate::output::{Failure, print};

/// Names the shell that asks for what may follow.
const ASKED: &str = "STOCKADE_COMPLETE";

/// What the command is called on every line, and found by on the PATH.
const NAME: &str = "stockade";

/// As a file on zsh's fpath the script is read at the first TAB, by a function of the file's name; that TAB is to be
/// answered too.
const ZSH_FIRST_TAB: &str = "\
if [[ \"$funcstack[1]\" = _stockade ]]; then
    _clap_dynamic_completer_stockade \"$@\"
fi
";

/// Arguments of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stockade completions bash > /etc/bash_completion.d/stockade
  stockade completions zsh > /usr/local/share/zsh/site-functions/_stockade
  stockade completions fish > ~/.config/fish/completions/stockade.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    fn completer(self) -> &'static dyn EnvCompleter {
        match self {
            Self::Bash => &Bash,
            Self::Zsh => &Zsh,
            Self::Fish => &Fish,
        }
    }
}

pub(crate) fn completions(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    args.shell.completer().write_registration(ASKED, NAME, NAME, NAME, &mut script)?;
    print(String::from_utf8_lossy(&script).trim_start())?;
    if matches!(args.shell, Shell::Zsh) {
        print(ZSH_FIRST_TAB)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Answers the script if it is what has started this process; tells whether it was.
///
/// # Errors
/// A shell that is not known, or a reader that is gone.
pub(crate) fn answered(words: &[OsString]) -> Result<bool, clap::Error> {
    let here = std::env::current_dir();
    CompleteEnv::with_factory(completed)
        .var(ASKED)
        .shells(Shells(&[&Bash, &Zsh, &Fish]))
        .try_complete(words, here.as_deref().ok())
}

/// The command line, with what its values may be.
fn completed() -> Command {
    Cli::command().mut_subcommands(|command| command.mut_args(with_values))
}

/// What an argument's values are, by its name: so that no command has to say it again.
fn with_values(argument: Arg) -> Arg {
    let value = argument.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    let completer = match (argument.get_id().as_str(), value) {
        // Behind a flag it is the name of a jail to be made.
        ("id" | "ids", _) if argument.get_long().is_none() => ArgValueCompleter::new(jails),
        ("profile" | "name", "NAME|FILE") => ArgValueCompleter::new(profiles),
        (_, value) if value.starts_with("SRC") => ArgValueCompleter::new(PathCompleter::any()),
        _ => return argument,
    };
    argument.add(completer)
}

/// The jails that there are; none for a caller who may not know them.
fn jails(typed: &OsStr) -> Vec<CompletionCandidate> {
    let listings = Store::from_environment().ok().and_then(|store| store.list().ok()).unwrap_or_default();
    let candidate = |id: &str, state: &str| CompletionCandidate::new(id).help(Some(state.to_owned().into()));
    beginning_with(typed, listings.iter().map(|jail| candidate(jail.id.as_str(), &jail.state.to_string())))
}

/// The profiles by name, and files.
fn profiles(typed: &OsStr) -> Vec<CompletionCandidate> {
    let directory = std::env::var_os("STOCKADE_PROFILE_DIR");
    let directory = Path::new(directory.as_deref().unwrap_or(DEFAULT_PROFILE_DIRECTORY.as_ref()));
    let known = Profiles::new(directory).all().unwrap_or_default();
    let mut candidates =
        beginning_with(typed, known.iter().map(|profile| CompletionCandidate::new(&profile.name)));
    candidates.extend(clap_complete::engine::ValueCompleter::complete(&PathCompleter::file(), typed));
    candidates
}

fn beginning_with(
    typed: &OsStr,
    candidates: impl Iterator<Item = CompletionCandidate>,
) -> Vec<CompletionCandidate> {
    let typed = typed.as_encoded_bytes();
    candidates.filter(|candidate| candidate.get_value().as_encoded_bytes().starts_with(typed)).collect()
}
