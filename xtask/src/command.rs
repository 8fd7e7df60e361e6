//! Running other programs, loudly.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The outcome of a task; an error is one line for a person.
pub(crate) type Done<T = ()> = Result<T, String>;

/// A command in the workspace's root.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// Cargo, the one that runs this task.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    command(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()), arguments)
}

/// Says what is run, runs it, and demands success.
pub(crate) fn run(command: &mut Command) -> Done {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let line = words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    run_named(&line, command)
}

/// The same for a command whose words are too many to be read.
pub(crate) fn run_named(name: &str, command: &mut Command) -> Done {
    eprintln!("+ {name}");
    let status = command.status().map_err(|e| format!("{name}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name}: {status}")) }
}

/// Runs it without a word, and gives what it wrote to stdout.
pub(crate) fn output(command: &mut Command) -> Done<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("run {program}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{program}: {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|e| format!("{program}: {e}"))
}

/// Whether a program is on the PATH.
pub(crate) fn is_installed(program: &str) -> bool {
    find_installed(program).is_some()
}

/// Where on the PATH a program is.
pub(crate) fn find_installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // As a user's PATH often lacks what root installs.
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// A file that cargo has built, whichever target it is for.
///
/// # Arguments
/// `path` below the target's directory, such as `release/jailer`.
pub(crate) fn built(path: &str) -> Done<PathBuf> {
    let target = root().join("target");
    let targets = std::fs::read_dir(&target).map_err(|e| format!("read {}: {e}", target.display()))?;
    let mut files = targets.flatten().map(|entry| entry.path().join(path));
    files.find(|path| path.is_file()).ok_or(format!("the build made no {path}"))
}

/// Where tasks keep what they made or fetched.
pub(crate) fn cache() -> Done<PathBuf> {
    let cache = root().join("target").join("xtask");
    std::fs::create_dir_all(&cache).map_err(|e| format!("make {}: {e}", cache.display()))?;
    Ok(cache)
}
