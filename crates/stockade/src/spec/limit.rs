//! Resource limits of the VMM's process.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::SpecError;

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

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (name, value) = text.split_once('=').ok_or_else(|| SpecError::LimitFormat(text.to_owned()))?;
        let limit = match name {
            "fsize" => Self::FileSize,
            "no-file" => Self::OpenFiles,
            _ => return Err(SpecError::LimitName(name.to_owned())),
        };
        match value.parse() {
            Ok(number) => Ok(limit(number)),
            Err(cause) => Err(SpecError::LimitValue(value.to_owned(), cause)),
        }
    }
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
}
