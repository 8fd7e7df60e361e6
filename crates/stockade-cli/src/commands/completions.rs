//! `stockade completions`: the script that completes commands, flags, jails and profiles in a shell.
//!
//! The script has no list of its own. At each TAB it runs `stockade` with [`COMPLETE_VARIABLE`] set, which answers
//! from the parser of the command line.

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

/// The environment variable that names the shell which asks for completions.
const COMPLETE_VARIABLE: &str = "STOCKADE_COMPLETE";

/// The name of the program on a command line and on the `PATH`.
const NAME: &str = "stockade";

/// The end of zsh's script. zsh reads a file on its fpath at the first TAB, inside a function of the file's name, and
/// that TAB needs an answer too.
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
    /// Shell that runs the script.
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

/// Answers the script; false if the script has not started this process.
///
/// # Arguments
/// `cli` builds the parser, which is needed for an answer only.
///
/// # Errors
/// Returns an error if the shell is unknown, or if stdout is closed.
pub(crate) fn answer(arguments: &[OsString], cli: fn() -> Command) -> Result<bool, clap::Error> {
    let here = std::env::current_dir();
    CompleteEnv::with_factory(|| with_completers(cli()))
        .var(COMPLETE_VARIABLE)
        .shells(Shells(&[&Bash, &Zsh, &Fish]))
        .try_complete(arguments, here.as_deref().ok())
}

/// Adds the completers of values to the parser.
fn with_completers(cli: Command) -> Command {
    cli.mut_subcommands(|command| {
        let name = command.get_name().to_owned();
        command.mut_args(|argument| with_values(&name, argument))
    })
}

/// Adds the completer of one argument, by its name, so that no command repeats it.
fn with_values(command: &str, argument: Arg) -> Arg {
    let value = argument.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    let completer = match (command, argument.get_id().as_str(), value) {
        ("start", "ids", _) => ArgValueCompleter::new(created_jails),
        // The value of a flag `--id` is the id of a new jail.
        (_, "id" | "ids", _) if argument.get_long().is_none() => ArgValueCompleter::new(jails),
        ("unplace", "paths", _) => ArgValueCompleter::new(placed_paths),
        ("kill", "signal", _) => ArgValueCompleter::new(signals),
        (_, "filter", _) => ArgValueCompleter::new(conditions),
        (_, "only", _) => ArgValueCompleter::new(jails_of_files),
        (_, "profile" | "name", "NAME|FILE") => ArgValueCompleter::new(profiles),
        (_, _, value) if value.starts_with("SRC") => ArgValueCompleter::new(PathCompleter::any()),
        _ => return argument,
    };
    argument.add(completer)
}

/// All jails; none for a caller without access to the state directory.
fn jails(typed: &OsStr) -> Vec<CompletionCandidate> {
    matching_jails(typed, |_| true)
}

fn created_jails(typed: &OsStr) -> Vec<CompletionCandidate> {
    matching_jails(typed, |jail| jail.state == JailState::Created)
}

fn matching_jails(typed: &OsStr, matches: impl Fn(&Listing) -> bool) -> Vec<CompletionCandidate> {
    let listings = Store::from_environment().ok().and_then(|store| store.list().ok()).unwrap_or_default();
    let jails = listings.iter().filter(|jail| matches(jail));
    let candidate = |id: &str, state: &str| CompletionCandidate::new(id).help(Some(state.to_owned().into()));
    with_prefix(typed, jails.map(|jail| candidate(jail.id.as_str(), &jail.state.to_string())))
}

/// The placed paths in the jail that the command line names.
fn placed_paths(typed: &OsStr) -> Vec<CompletionCandidate> {
    let Ok(store) = Store::from_environment() else { return Vec::new() };
    let receipt = |argument: &OsString| store.read(&argument.to_str()?.parse().ok()?).ok().flatten();
    let Some(receipt) = line().iter().skip(2).find_map(receipt) else { return Vec::new() };
    with_prefix(typed, receipt.placed().map(|path| CompletionCandidate::new(path.to_string())))
}

fn signals(typed: &OsStr) -> Vec<CompletionCandidate> {
    with_prefix(typed, SIGNALS.iter().map(|(name, _)| CompletionCandidate::new(name)))
}

/// The keys of `--filter`, and each state.
fn conditions(typed: &OsStr) -> Vec<CompletionCandidate> {
    let keys = FILTER_KEYS.into_iter().filter(|key| *key != STATE).map(|key| format!("{key}="));
    let states = JailState::ALL.into_iter().map(|state| format!("{STATE}={state}"));
    with_prefix(typed, states.chain(keys).map(CompletionCandidate::new))
}

/// The key of `--filter` whose values are known.
const STATE: &str = "state";

/// The jails that the jail files on the command line describe.
fn jails_of_files(typed: &OsStr) -> Vec<CompletionCandidate> {
    let line = line();
    let behind = line.windows(2).filter(|pair| pair[0] == "-f" || pair[0] == "--file");
    let files: Vec<PathBuf> = behind.map(|pair| PathBuf::from(&pair[1])).collect();
    let ids = NamedJails::in_files(&files).map(|named| named.ids).unwrap_or_default();
    with_prefix(typed, ids.iter().map(|id| CompletionCandidate::new(id.as_str())))
}

/// The arguments of the command line to complete, the program's name first.
fn line() -> Vec<OsString> {
    std::env::args_os().skip_while(|argument| argument != "--").skip(1).collect()
}

/// The names of the profiles, and files.
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
