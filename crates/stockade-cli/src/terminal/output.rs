//! Data on stdout, messages on stderr, and one line for each failure.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use stockade::Report;
use stockade::spec::SpecError;
use stockade::spec::reason;

pub(crate) use super::escape::escape_control;
use super::escape::{escape_json, escape_lines};

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// One line.
    Message(String),
    /// A mistake in the value of a flag.
    Flag {
        /// Its name without dashes.
        flag: String,
        /// The wrong value of a repeatable flag.
        what: Option<String>,
        text: String,
    },
    /// One line, with an exit code that differs from those of the executed program.
    Coded(String, Code),
    /// The reader of stdout has closed it, as with `| head`.
    StdoutClosed,
}

impl Failure {
    pub(crate) fn new(line: impl Into<String>) -> Self {
        Self::Message(line.into())
    }

    pub(crate) fn flag(flag: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Flag { flag: flag.into(), what: None, text: text.into() }
    }

    /// Returns the message without the program's name.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Message(line) | Self::Coded(line, _) => line.clone(),
            Self::Flag { flag, what: None, text } => format!("{}: {text}", origin(flag)),
            Self::Flag { flag, what: Some(what), text } => format!("--{flag} {what}: {text}"),
            Self::StdoutClosed => "stdout is closed".to_owned(),
        }
    }

    /// Prints the failure on stderr and returns its exit code.
    pub(crate) fn report(self) -> ExitCode {
        let code = match self {
            Self::StdoutClosed => return Code::Done.into(),
            Self::Coded(_, code) => code,
            Self::Message(_) | Self::Flag { .. } => Code::Failed,
        };
        error(&self.line());
        code.into()
    }
}

impl Failure {
    /// Sets the exit code, unless the failure has one already.
    pub(crate) fn with_code(self, code: Code) -> Self {
        match self {
            Self::Message(_) | Self::Flag { .. } => Self::Coded(self.line(), code),
            Self::Coded(..) | Self::StdoutClosed => self,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::StdoutClosed,
            _ => Self::Message(format!("cannot write to stdout: {}", reason(&error))),
        }
    }
}

/// The flag, or the variable from which it has its value.
fn origin(flag: &str) -> String {
    let variable = match flag {
        "state-dir" => "STOCKADE_STATE_DIR",
        "profile-dir" => "STOCKADE_PROFILE_DIR",
        _ => return format!("--{flag}"),
    };
    let named = format!("--{flag}");
    let is_given = std::env::args_os().any(|argument| {
        argument
            .to_string_lossy()
            .strip_prefix(&*named)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    });
    if !is_given && std::env::var_os(variable).is_some() { variable.to_owned() } else { named }
}

/// Names the flag of a specification error.
pub(crate) fn in_flag(flag: &'static str) -> impl Fn(SpecError) -> Failure {
    move |error| Failure::flag(flag, error.to_string())
}

/// Whether `--quiet` was given.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Suppresses messages other than errors from now on.
pub(crate) fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Whether messages other than errors are suppressed.
pub(crate) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Prints a message, unless `--quiet` suppresses it.
pub(crate) fn info(line: &str) {
    if !is_quiet() {
        error(line);
    }
}

/// Prints the objects that were not removed.
pub(crate) fn report_leftovers(report: &Report) {
    for left in &report.left {
        info(&format!("not removed: {}: {}", left.what, left.reason));
    }
    for kept in &report.shared {
        info(&format!("kept: {}: {}", kept.what, kept.reason));
    }
}

/// Prints an error on stderr, also with `--quiet`. A closed stderr is ignored.
///
/// Control characters are escaped: a VMM's last log line or an argument must not end the line or control the terminal.
pub(crate) fn error(line: &str) {
    let _ = writeln!(io::stderr(), "stockade: {}", escape_control(line));
}

/// Prints lines of text on stdout.
///
/// A name in it that may hold a newline has to be escaped before.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_styled(&escape_lines(text))
}

/// Prints text with colours on stdout. All untrusted text in it has to be escaped before.
pub(crate) fn print_styled(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Drops the failure of a closed stdout, so that the command finishes its work without a reader.
pub(crate) fn ignore_closed_stdout(printed: Result<(), Failure>) -> Result<(), Failure> {
    match printed {
        Err(Failure::StdoutClosed) => Ok(()),
        other => other,
    }
}

/// Prints JSON on stdout, indented.
pub(crate) fn print_json(data: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(data).map_err(|e| Failure::new(e.to_string()))?;
    print_styled(&(escape_json(&text) + "\n"))
}

/// Prints JSON on one line of stdout.
pub(crate) fn print_json_line(data: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(data).map_err(|e| Failure::new(e.to_string()))?;
    print_styled(&(escape_json(&text) + "\n"))
}

/// Every exit code of stockade itself.
///
/// `run`, `exec` and `shell` also pass on their program's exit code. It is 128 and the signal's number after a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// The command did all of its work.
    Done = 0,
    /// The command failed, wholly or in part, or found a fault.
    Failed = 1,
    /// `plan`: an existing jail differs from its description.
    Differs = 2,
    /// A time limit expired, as with timeout(1).
    TimedOut = 124,
    /// `run`, `exec` or `shell` itself failed, not the VMM or the program. As with env(1) and container engines.
    OwnFailure = 125,
    /// The program cannot be executed.
    NotExecutable = 126,
    /// The program does not exist.
    NotFound = 127,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

pub(crate) fn success_if(good: bool) -> ExitCode {
    if good { Code::Done } else { Code::Failed }.into()
}

/// Fails without root. The kernel would fail later, with an errno that does not name the cause.
pub(crate) fn require_root(command: &str) -> Result<(), Failure> {
    require_root_for(command, "for namespaces, device nodes and file owners")
}

/// Like [`require_root`], for commands that change nothing.
pub(crate) fn require_root_to_look(command: &str) -> Result<(), Failure> {
    require_root_for(command, "to read the receipts")
}

fn require_root_for(command: &str, what: &str) -> Result<(), Failure> {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return Ok(());
    }
    Err(Failure::new(format!("`{command}` needs root {what}, but runs as uid {}; use sudo", uid.as_raw())))
}
