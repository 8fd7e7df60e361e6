//! The exit status of a process.

use serde::{Deserialize, Serialize};

/// The exit status of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It exited with this code.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
    /// The status is lost: this process was not its parent, or ignores SIGCHLD.
    Unknown,
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::Killed(signal) => write!(f, "killed by signal {signal}"),
            Self::Unknown => f.write_str("exit status unknown"),
        }
    }
}

impl ExitStatus {
    /// The text of the monitor, the state directory and tombstones: `exited CODE`, `killed SIGNAL` or `unknown`.
    pub(crate) fn to_text(self) -> String {
        match self {
            Self::Exited(code) => format!("exited {code}"),
            Self::Killed(signal) => format!("killed {signal}"),
            Self::Unknown => "unknown".to_owned(),
        }
    }

    /// Parses the text. The blank is optional: tombstones of version 0.1 have none.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        if text == "unknown" {
            return Some(Self::Unknown);
        }
        let (how, number) = text.split_at(text.find(|c: char| !c.is_ascii_lowercase())?);
        let number = number.strip_prefix(' ').unwrap_or(number).parse().ok()?;
        match how {
            "exited" => Some(Self::Exited(number)),
            "killed" => Some(Self::Killed(number)),
            _ => None,
        }
    }

    /// From a wait status of `waitpid`.
    pub(crate) fn from_status(status: i32) -> Self {
        match status & 0x7f {
            0 => Self::Exited((status >> 8) & 0xff),
            signal => Self::Killed(signal),
        }
    }

    /// The exit code as a shell reports it: 128 plus the signal's number for a killed process, 255 for an unknown
    /// status.
    pub fn shell_code(self) -> u8 {
        let code = match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => 128 + signal,
            Self::Unknown => 255,
        };
        u8::try_from(code & 0xff).unwrap_or(u8::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_status_is_parsed_from_its_text() {
        for status in
            [ExitStatus::Exited(0), ExitStatus::Exited(255), ExitStatus::Killed(9), ExitStatus::Unknown]
        {
            assert_eq!(ExitStatus::from_text(&status.to_text()), Some(status));
        }
        assert_eq!(ExitStatus::from_text("exited3"), Some(ExitStatus::Exited(3)));
        for bad in ["", "exited", "exited x", "lost 5", "5", "Exited 5"] {
            assert_eq!(ExitStatus::from_text(bad), None, "{bad}");
        }
    }
}
