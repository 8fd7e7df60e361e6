//! Running other programs, with their command lines on stderr.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// The result of a task; the error is a message for a person.
pub(crate) type Done<T = ()> = Result<T, String>;

/// Prepares a command in the workspace's root.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// Prepares a command of the cargo that runs this task.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    command(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()), arguments)
}

/// Prints and runs a command, which must succeed.
pub(crate) fn run(command: &mut Command) -> Done {
    run_named(&line_of(command), command)
}

/// The command line as text.
fn line_of(command: &Command) -> String {
    let arguments: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    arguments.iter().map(|argument| argument.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Prints and runs a command, which must succeed. Forwards its output to stderr, and passes each line to `read`
/// without colours.
pub(crate) fn run_reading(mut command: Command, mut read: impl FnMut(&str)) -> Done {
    let name = line_of(&command);
    eprintln!("+ {name}");
    let error = |e| format!("{name}: {e}");
    // One pipe for both streams keeps their order.
    let (mut output, stderr) = std::io::pipe().map_err(error)?;
    let stdout = stderr.try_clone().map_err(error)?;
    if std::io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = command.stdout(stdout).stderr(stderr).spawn().map_err(error)?;
    // The command holds the pipe open too.
    drop(command);
    let (to, chunks) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 1 << 13];
        while let Ok(length @ 1..) = output.read(&mut buffer) {
            if to.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    let mut rest = Vec::new();
    loop {
        match chunks.recv_timeout(Duration::from_millis(500)) {
            Ok(chunk) => {
                let _ = std::io::stderr().write_all(&chunk);
                rest.extend_from_slice(&chunk);
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    read(&without_colours(String::from_utf8_lossy(&line).trim_end()));
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            // A process that outlives the command holds the pipe open.
            Err(RecvTimeoutError::Timeout) => {
                if child.try_wait().map_err(error)?.is_some() {
                    break;
                }
            }
        }
    }
    let status = child.wait().map_err(error)?;
    if status.success() { Ok(()) } else { Err(format!("{name}: {status}")) }
}

/// Removes the escape sequences `ESC [ … LETTER` from a line.
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).map_or(part.len(), |end| end + 1);
        plain.push_str(&part[end..]);
    }
    plain
}

/// Runs a command, which must succeed, and prints `name` instead of its long command line.
pub(crate) fn run_named(name: &str, command: &mut Command) -> Done {
    eprintln!("+ {name}");
    let status = command.status().map_err(|e| format!("{name}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name}: {status}")) }
}

/// Runs a command silently, and returns its stdout.
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

/// The path of a program on the PATH.
pub(crate) fn find_installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A user's PATH often lacks these directories.
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

/// Finds a file that cargo built, for any target.
///
/// # Arguments
/// `path`: below the target's directory, such as `release/jailer`.
pub(crate) fn built(path: &str) -> Done<PathBuf> {
    let target = root().join("target");
    let targets = std::fs::read_dir(&target).map_err(|e| format!("read {}: {e}", target.display()))?;
    let mut files = targets.flatten().map(|entry| entry.path().join(path));
    files.find(|path| path.is_file()).ok_or(format!("the build created no {path}"))
}

/// The tasks' cache of created and downloaded files.
pub(crate) fn cache() -> Done<PathBuf> {
    let cache = root().join("target").join("xtask");
    std::fs::create_dir_all(&cache).map_err(|e| format!("create {}: {e}", cache.display()))?;
    Ok(cache)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn shell(script: &str) -> (Done, Vec<String>) {
        let mut lines = Vec::new();
        let done = run_reading(command("sh", &["-c", script]), |line| lines.push(line.to_owned()));
        (done, lines)
    }

    #[test]
    fn both_streams_are_read_in_order_without_colours() {
        let (done, lines) =
            shell("echo one; printf '\\033[1mt\\033[32mwo\\033[0m\\n' >&2; echo three; exit 3");
        assert_eq!(lines, ["one", "two", "three"]);
        assert!(done.is_err_and(|problem| problem.ends_with("exit status: 3")));
    }

    #[test]
    fn run_reading_does_not_wait_for_processes_left_behind() {
        let started = Instant::now();
        assert_eq!(shell("sleep 10 & echo one"), (Ok(()), vec!["one".to_owned()]));
        assert!(started.elapsed() < Duration::from_secs(8));
    }
}
