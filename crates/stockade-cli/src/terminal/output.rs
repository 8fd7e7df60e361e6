//! Data on stdout, talk on stderr, and a failure in one line.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use stockade::Report;
use stockade::spec::SpecError;

/// Why a command ends without having done its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// To be told in one line.
    Message(String),
    /// What is wrong with a flag, and with which of its values if it has several.
    Flag {
        /// Its name without dashes.
        flag: String,
        what: Option<String>,
        text: String,
    },
    /// The same as told, with an exit code that tells it from that of the program that was run.
    Coded(String, Code),
    /// Whoever read the output is gone, as with `| head`.
    StdoutClosed,
}

impl Failure {
    pub(crate) fn new(line: impl Into<String>) -> Self {
        Self::Message(line.into())
    }

    /// A mistake in the value of a flag.
    pub(crate) fn flag(flag: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Flag { flag: flag.into(), what: None, text: text.into() }
    }

    /// What is told of it.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Message(line) | Self::Coded(line, _) => line.clone(),
            Self::Flag { flag, what: None, text } => format!("--{flag}: {text}"),
            Self::Flag { flag, what: Some(what), text } => format!("--{flag} {what}: {text}"),
            Self::StdoutClosed => "whoever read the output is gone".to_owned(),
        }
    }

    /// Tells it on stderr.
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
    /// The same failure with this exit code, unless it has one already.
    pub(crate) fn with_code(self, code: Code) -> Self {
        match self {
            Self::Message(_) | Self::Flag { .. } => Self::Coded(self.line(), code),
            Self::Coded(..) | Self::StdoutClosed => self,
        }
    }
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        Self::Message(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::StdoutClosed,
            _ => Self::Message(format!("failed to write to stdout: {error}")),
        }
    }
}

/// Says in which flag the mistake is.
pub(crate) fn in_flag(flag: &'static str) -> impl Fn(SpecError) -> Failure {
    move |error| Failure::flag(flag, error.to_string())
}

/// Whether `--quiet` asks for no talk.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Keeps talk back from here on.
pub(crate) fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Whether talk is kept back.
pub(crate) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// A line of talk, which `--quiet` keeps back.
pub(crate) fn info(line: &str) {
    if !is_quiet() {
        error(line);
    }
}

/// Tells what could not be removed.
pub(crate) fn report_leftovers(report: &Report) {
    for left in &report.left {
        info(&format!("left: {}: {}", left.what, left.reason));
    }
}

/// What went wrong, which is told whatever is asked for. If nobody listens there is nobody to tell. What it repeats
/// of others, a VMM's last words or an argument, neither ends the line nor commands the terminal.
pub(crate) fn error(line: &str) {
    let _ = writeln!(io::stderr(), "stockade: {}", escape_control(line));
}

/// What others have chosen, a jail's uid perhaps, without what a terminal takes for a command; one line.
pub(crate) fn escape_control(text: &str) -> String {
    let shown =
        |letter: char| if letter.is_control() { letter.escape_default().to_string() } else { letter.into() };
    text.chars().map(shown).collect()
}

/// Text for stdout.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// What is left to do is done even if nobody reads of it any more.
pub(crate) fn ignore_closed_stdout(printed: Result<(), Failure>) -> Result<(), Failure> {
    match printed {
        Err(Failure::StdoutClosed) => Ok(()),
        other => other,
    }
}

/// Data for programs on stdout, one line.
pub(crate) fn print_json(data: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(data).map_err(|e| Failure::new(e.to_string()))?;
    print(&format!("{text}\n"))
}

/// Data for programs that read line by line.
pub(crate) fn print_json_line(data: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(data).map_err(|e| Failure::new(e.to_string()))?;
    print(&format!("{text}\n"))
}

/// Every exit code of stockade's own. `run`, `exec` and `shell` end with that of their program besides, which is 128
/// and the signal's number if it was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// What was asked for is done.
    Done = 0,
    /// It is not, or not all of it; or what was looked at is not as it should be.
    Failed = 1,
    /// `plan`: a jail that exists is not as it would be made.
    Differs = 2,
    /// It did not come in time, as timeout(1) has it.
    TimedOut = 124,
    /// `run`, `exec` or `shell` failed itself: whatever the VMM or the program ends with is another matter. As env(1)
    /// and the engines of containers have it.
    OwnFailure = 125,
    /// Its program may not be executed.
    NotExecutable = 126,
    /// Its program is not there.
    NotFound = 127,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Done if this is so, failed otherwise.
pub(crate) fn success_if(good: bool) -> ExitCode {
    if good { Code::Done } else { Code::Failed }.into()
}

/// Refuses early, in words, what the kernel would refuse late, in numbers.
pub(crate) fn require_root(command: &str) -> Result<(), Failure> {
    require_root_for(command, "for namespaces, device nodes and owners")
}

/// The same for commands that only look.
pub(crate) fn require_root_to_look(command: &str) -> Result<(), Failure> {
    require_root_for(command, "to read the receipts")
}

fn require_root_for(command: &str, what: &str) -> Result<(), Failure> {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return Ok(());
    }
    Err(Failure::new(format!("'{command}' needs root, {what}; this is uid {}: try sudo", uid.as_raw())))
}
