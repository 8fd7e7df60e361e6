//! `stockade completions`: the script by which a shell completes commands, flags, jails and profiles.
//!
//! The script knows nothing itself: at each TAB it runs `stockade` with [`ASKED`] set, which answers from the same
//! table that it reads its command line by.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, Args, Command, ValueEnum};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter};
use clap_complete::env::{Bash, EnvCompleter, Fish, Shells, Zsh};
use stockade::spec::{DEFAULT_PROFILE_DIRECTORY, Profiles};
use stockade::{JailState, Listing, Store};

use crate::jail_file::NamedJails;
use crate::select::FILTER_KEYS;
use crate::terminal::output::{Failure, print};
use crate::terminal::signal_names::SIGNALS;

/// Names the shell that asks for what may follow.
const COMPLETE_VARIABLE: &str = "STOCKADE_COMPLETE";

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
    args.shell.completer().write_registration(COMPLETE_VARIABLE, NAME, NAME, NAME, &mut script)?;
    print(String::from_utf8_lossy(&script).trim_start())?;
    if matches!(args.shell, Shell::Zsh) {
        print(ZSH_FIRST_TAB)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Answers the script if it is what has started this process; tells whether it was.
///
/// # Arguments
/// `cli` makes the command line, which is wanted for an answer alone.
///
/// # Errors
/// A shell that is not known, or a reader that is gone.
pub(crate) fn answer(words: &[OsString], cli: fn() -> Command) -> Result<bool, clap::Error> {
    let here = std::env::current_dir();
    CompleteEnv::with_factory(|| with_completers(cli()))
        .var(COMPLETE_VARIABLE)
        .shells(Shells(&[&Bash, &Zsh, &Fish]))
        .try_complete(words, here.as_deref().ok())
}

/// The command line, with what its values may be.
fn with_completers(cli: Command) -> Command {
    cli.mut_subcommands(|command| {
        let name = command.get_name().to_owned();
        command.mut_args(|argument| with_values(&name, argument))
    })
}

/// What the values of a command's argument are, by its name: so that no command has to say it again.
fn with_values(command: &str, argument: Arg) -> Arg {
    let value = argument.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    let completer = match (command, argument.get_id().as_str(), value) {
        ("start", "ids", _) => ArgValueCompleter::new(prepared_jails),
        // Behind a flag it is the name of a jail to be made.
        (_, "id" | "ids", _) if argument.get_long().is_none() => ArgValueCompleter::new(jails),
        ("unplace", "paths", _) => ArgValueCompleter::new(placed),
        ("kill", "signal", _) => ArgValueCompleter::new(signals),
        (_, "filter", _) => ArgValueCompleter::new(conditions),
        (_, "only", _) => ArgValueCompleter::new(jails_of_files),
        (_, "profile" | "name", "NAME|FILE") => ArgValueCompleter::new(profiles),
        (_, _, value) if value.starts_with("SRC") => ArgValueCompleter::new(PathCompleter::any()),
        _ => return argument,
    };
    argument.add(completer)
}

/// The jails that there are; none for a caller who may not know them.
fn jails(typed: &OsStr) -> Vec<CompletionCandidate> {
    jails_that(typed, |_| true)
}

/// Those whose VMM can be started.
fn prepared_jails(typed: &OsStr) -> Vec<CompletionCandidate> {
    jails_that(typed, |jail| jail.state == JailState::Created)
}

fn jails_that(typed: &OsStr, are_meant: impl Fn(&Listing) -> bool) -> Vec<CompletionCandidate> {
    let listings = Store::from_environment().ok().and_then(|store| store.list().ok()).unwrap_or_default();
    let meant = listings.iter().filter(|jail| are_meant(jail));
    let candidate = |id: &str, state: &str| CompletionCandidate::new(id).help(Some(state.to_owned().into()));
    with_prefix(typed, meant.map(|jail| candidate(jail.id.as_str(), &jail.state.to_string())))
}

/// What was placed into the jail that the line names.
fn placed(typed: &OsStr) -> Vec<CompletionCandidate> {
    let Ok(store) = Store::from_environment() else { return Vec::new() };
    let receipt = |word: &OsString| store.read(&word.to_str()?.parse().ok()?).ok().flatten();
    let Some(receipt) = line().iter().skip(2).find_map(receipt) else { return Vec::new() };
    with_prefix(typed, receipt.placed().map(|path| CompletionCandidate::new(path.to_string())))
}

/// The signals by name.
fn signals(typed: &OsStr) -> Vec<CompletionCandidate> {
    with_prefix(typed, SIGNALS.iter().map(|(name, _)| CompletionCandidate::new(name)))
}

/// What there can be conditions on, and the states.
fn conditions(typed: &OsStr) -> Vec<CompletionCandidate> {
    let keys = FILTER_KEYS.into_iter().filter(|key| *key != STATE).map(|key| format!("{key}="));
    let states = JailState::ALL.into_iter().map(|state| format!("{STATE}={state}"));
    with_prefix(typed, states.chain(keys).map(CompletionCandidate::new))
}

/// The condition whose values are known.
const STATE: &str = "state";

/// The jails that the files on the line describe.
fn jails_of_files(typed: &OsStr) -> Vec<CompletionCandidate> {
    let line = line();
    let behind = line.windows(2).filter(|words| words[0] == "-f" || words[0] == "--file");
    let files: Vec<PathBuf> = behind.map(|words| PathBuf::from(&words[1])).collect();
    let ids = NamedJails::in_files(&files).map(|named| named.ids).unwrap_or_default();
    with_prefix(typed, ids.iter().map(|id| CompletionCandidate::new(id.as_str())))
}

/// The words of the line that is completed, the command's own name first.
fn line() -> Vec<OsString> {
    std::env::args_os().skip_while(|word| word != "--").skip(1).collect()
}

/// The profiles by name, and files.
fn profiles(typed: &OsStr) -> Vec<CompletionCandidate> {
    let directory = std::env::var_os("STOCKADE_PROFILE_DIR");
    let directory = Path::new(directory.as_deref().unwrap_or(DEFAULT_PROFILE_DIRECTORY.as_ref()));
    let known = Profiles::new(directory).all().unwrap_or_default();
    let mut candidates =
        with_prefix(typed, known.iter().map(|profile| CompletionCandidate::new(&profile.name)));
    candidates.extend(clap_complete::engine::ValueCompleter::complete(&PathCompleter::file(), typed));
    candidates
}

fn with_prefix(
    typed: &OsStr,
    candidates: impl Iterator<Item = CompletionCandidate>,
) -> Vec<CompletionCandidate> {
    let typed = typed.as_encoded_bytes();
    candidates.filter(|candidate| candidate.get_value().as_encoded_bytes().starts_with(typed)).collect()
}
