//! Resource limits of the VMM's process.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{SpecError, parse_size};

/// One limit, parsed from `no-file=COUNT` or `fsize=BYTES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResourceLimit {
    /// The largest file that the VMM may write, in bytes.
    FileSize(u64),
    /// The largest number of open file descriptors.
    OpenFiles(u64),
}

impl FromStr for ResourceLimit {
    type Err = SpecError;

    /// Parses numbers without a unit, as Firecracker's jailer does.
    fn from_str(text: &str) -> Result<Self, SpecError> {
        Self::parse(text, number)
    }
}

impl ResourceLimit {
    /// Parses a limit whose size may have a unit, such as `fsize=10M`.
    pub(super) fn with_unit(text: &str) -> Result<Self, SpecError> {
        Self::parse(text, parse_size)
    }

    fn parse(text: &str, size: impl Fn(&str) -> Result<u64, SpecError>) -> Result<Self, SpecError> {
        let (name, value) = text.split_once('=').ok_or_else(|| SpecError::LimitFormat(text.to_owned()))?;
        match name {
            "fsize" => Ok(Self::FileSize(size(value)?)),
            "no-file" => Ok(Self::OpenFiles(number(value)?)),
            _ => Err(SpecError::LimitName(name.to_owned())),
        }
    }
}

impl fmt::Display for ResourceLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FileSize(bytes) => write!(f, "fsize={bytes}"),
            Self::OpenFiles(count) => write!(f, "no-file={count}"),
        }
    }
}

fn number(text: &str) -> Result<u64, SpecError> {
    text.parse().map_err(|cause| SpecError::LimitValue(text.to_owned(), cause))
}

/// All resource limits of a VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The largest file that it may write, in bytes; with `None` the limit is inherited.
    pub file_size: Option<u64>,
    /// The largest number of open file descriptors.
    pub open_files: u64,
    /// Whether that number was requested. The default is lowered to the launcher's hard limit, a request is not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open_files_requested: bool,
}

impl Default for Limits {
    /// 2048 file descriptors and an inherited file size, as in Firecracker's jailer.
    fn default() -> Self {
        Self { file_size: None, open_files: 2048, open_files_requested: false }
    }
}

impl Extend<ResourceLimit> for Limits {
    /// The last limit of a kind counts.
    fn extend<I: IntoIterator<Item = ResourceLimit>>(&mut self, limits: I) {
        for limit in limits {
            match limit {
                ResourceLimit::FileSize(bytes) => self.file_size = Some(bytes),
                ResourceLimit::OpenFiles(count) => {
                    (self.open_files, self.open_files_requested) = (count, true);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_limit_of_a_kind_counts() {
        let mut limits = Limits::default();
        limits.extend(["no-file=10", "fsize=5", "no-file=20"].map(|l| l.parse().expect("a plain limit")));
        assert_eq!(limits, Limits { file_size: Some(5), open_files: 20, open_files_requested: true });
    }

    #[test]
    fn a_limit_is_a_known_name_and_a_number() {
        assert_eq!("no-file".parse::<ResourceLimit>(), Err(SpecError::LimitFormat("no-file".into())));
        assert_eq!("cores=1".parse::<ResourceLimit>(), Err(SpecError::LimitName("cores".into())));
        assert!(matches!("fsize=-1".parse::<ResourceLimit>(), Err(SpecError::LimitValue(..))));
    }

    #[test]
    fn a_size_may_have_a_unit_but_not_in_the_drop_in() {
        assert_eq!(ResourceLimit::with_unit("fsize=10M"), Ok(ResourceLimit::FileSize(10 << 20)));
        assert_eq!(ResourceLimit::with_unit("fsize=10"), Ok(ResourceLimit::FileSize(10)));
        assert!(matches!("fsize=10M".parse::<ResourceLimit>(), Err(SpecError::LimitValue(..))));
        assert!(matches!(ResourceLimit::with_unit("no-file=1K"), Err(SpecError::LimitValue(..))));
    }
}
