//! How a process ended.

use serde::{Deserialize, Serialize};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// By itself, with this exit code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
    /// Nobody knows: this process was not its parent, or the kernel was told to keep no status.
    Unknown,
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::Killed(signal) => write!(f, "killed by signal {signal}"),
            Self::Unknown => f.write_str("how is not known"),
        }
    }
}

impl ExitStatus {
    /// The text that the monitor, the state directory and a tombstone have: `exited CODE`, `killed SIGNAL` or `unknown`.
    pub(crate) fn to_text(self) -> String {
        match self {
            Self::Exited(code) => format!("exited {code}"),
            Self::Killed(signal) => format!("killed {signal}"),
            Self::Unknown => "unknown".to_owned(),
        }
    }

    /// Reads that text. The blank is optional: tombstones of version 0.1 have none.
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

    /// What `wait` would tell.
    pub(crate) fn from_status(status: i32) -> Self {
        match status & 0x7f {
            0 => Self::Exited((status >> 8) & 0xff),
            signal => Self::Killed(signal),
        }
    }

    /// The exit code as a shell reports it: 128 and the signal's number for a process that was killed.
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
    fn an_exit_status_is_read_back_from_its_text() {
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
