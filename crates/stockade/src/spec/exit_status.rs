//! The exit status of a process.

use serde::{Deserialize, Serialize};

use super::Known;

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

    /// Describes the exit of a VMM, with the processes of its jail that the kernel killed because memory ran out.
    ///
    /// The VMM need not be one of them, unless the jail has no other process.
    ///
    /// # Arguments
    /// `oom_kills` is the number of these processes; `None` if no cgroup counts them. That it is unknown is only of
    /// interest for a VMM that may be one of them.
    pub fn describe(self, oom_kills: Option<&Known<u64>>) -> String {
        const SIGKILL: i32 = 9;
        match oom_kills.map(Known::result) {
            Some(Ok(1)) => format!("{self}; out of memory: the kernel killed a process of the jail"),
            Some(Ok(count @ 2..)) => {
                format!("{self}; out of memory: the kernel killed {count} processes of the jail")
            }
            Some(Err(reason)) if matches!(self, Self::Killed(SIGKILL) | Self::Unknown) => {
                format!("{self}; whether memory ran out is unknown: {reason}")
            }
            Some(_) | None => self.to_string(),
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

/// The record of an exit that a jail's entry keeps: the exit status, and the processes of the jail that the kernel killed
/// because memory ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExitRecord {
    pub(crate) status: ExitStatus,
    /// `None` if they were not counted.
    pub(crate) oom_kills: Option<u64>,
}

/// Stands between the exit status and the number.
const OOM_KILLS: &str = " oom ";

impl ExitRecord {
    /// The text of the state directory: that of the exit status, and ` oom NUMBER` if the number is known.
    pub(crate) fn to_text(self) -> String {
        let kills = self.oom_kills.map(|kills| format!("{OOM_KILLS}{kills}"));
        self.status.to_text() + &kills.unwrap_or_default()
    }

    /// Parses the text.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let (status, oom_kills) = match text.split_once(OOM_KILLS) {
            Some((status, kills)) => (status, Some(kills.parse().ok()?)),
            None => (text, None),
        };
        Some(Self { status: ExitStatus::from_text(status)?, oom_kills })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_record_is_parsed_from_its_text() {
        for status in [ExitStatus::Exited(3), ExitStatus::Killed(9), ExitStatus::Unknown] {
            for oom_kills in [None, Some(0), Some(u64::MAX)] {
                let record = ExitRecord { status, oom_kills };
                assert_eq!(ExitRecord::from_text(&record.to_text()), Some(record));
            }
        }
        for bad in ["", "oom 1", "killed 9 oom", "killed 9 oom x", "killed 9 oom -1", "killed 9 1"] {
            assert_eq!(ExitRecord::from_text(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_unknown_count_is_described_only_where_it_may_be_the_cause() {
        let unknown = Known::unknown("no permission");
        let text = |status: ExitStatus, kills| status.describe(kills);
        assert_eq!(text(ExitStatus::Killed(9), None), "killed by signal 9");
        assert_eq!(text(ExitStatus::Killed(9), Some(&Known::Fact(0))), "killed by signal 9");
        let of_two = "exit code 1; out of memory: the kernel killed 2 processes of the jail";
        assert_eq!(text(ExitStatus::Exited(1), Some(&Known::Fact(2))), of_two);
        let of_unknown = "killed by signal 9; whether memory ran out is unknown: no permission";
        assert_eq!(text(ExitStatus::Killed(9), Some(&unknown)), of_unknown);
        assert_eq!(text(ExitStatus::Exited(1), Some(&unknown)), "exit code 1");
    }

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
