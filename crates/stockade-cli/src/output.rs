//! Data on stdout, talk on stderr, and a failure in one line.

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;
use stockade::spec::SpecError;

/// Why a command ends without having done its work.
#[derive(Debug)]
pub(crate) enum Failure {
    /// To be told in one line.
    Told(String),
    /// What is wrong with a flag, and with which of its values if it has several.
    Flag {
        /// Its name without dashes.
        flag: String,
        what: Option<String>,
        text: String,
    },
    /// The same as told, with an exit code that tells it from that of the program that was run.
    Coded(String, u8),
    /// Whoever read the output is gone, as with `| head`.
    ReaderGone,
}

impl Failure {
    pub(crate) fn new(line: impl Into<String>) -> Self {
        Self::Told(line.into())
    }

    /// A mistake in the value of a flag.
    pub(crate) fn flag(flag: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Flag { flag: flag.into(), what: None, text: text.into() }
    }

    /// Tells it on stderr.
    pub(crate) fn tell(self) -> ExitCode {
        match self.with_code(1) {
            Self::Coded(line, code) => {
                note(&line);
                ExitCode::from(code)
            }
            _ => ExitCode::SUCCESS,
        }
    }
}

impl Failure {
    /// The same failure with this exit code, unless it has one already.
    pub(crate) fn with_code(self, code: u8) -> Self {
        match self {
            Self::Told(line) => Self::Coded(line, code),
            Self::Flag { flag, what: None, text } => Self::Coded(format!("--{flag}: {text}"), code),
            Self::Flag { flag, what: Some(what), text } => {
                Self::Coded(format!("--{flag} {what}: {text}"), code)
            }
            Self::Coded(..) | Self::ReaderGone => self,
        }
    }
}

impl From<stockade::Error> for Failure {
    fn from(error: stockade::Error) -> Self {
        // A part of a specification is called what its flag is.
        if let stockade::Error::Argument { name, cause } = error {
            let way_out =
                if matches!(*cause, stockade::Error::Closure(_)) { " (see --no-closure)" } else { "" };
            return Self::flag(name, format!("{cause}{way_out}"));
        }
        // Only the host's facts tell that a setting cannot be had; the flag is known all the same.
        if let stockade::Error::Spec(SpecError::NoController(_) | SpecError::OtherCgroupVersion { .. }) =
            error
        {
            return Self::flag("cgroup", error.to_string());
        }
        Self::Told(error.to_string())
    }
}

impl From<SpecError> for Failure {
    fn from(error: SpecError) -> Self {
        Self::Told(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Told(format!("failed to write to stdout: {error}")),
        }
    }
}

/// A line of talk. If nobody listens there is nobody to tell.
pub(crate) fn note(line: &str) {
    let _ = writeln!(io::stderr(), "stockade: {line}");
}

/// Text for stdout.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
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

/// The exit code where something did not come in time, as that of timeout(1).
pub(crate) const TIMED_OUT: u8 = 124;

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
