//! Resource limits of the VMM's process.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::SpecError;

/// One limit as given on a command line, such as `no-file=1024`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResourceLimit {
    /// The largest file the VMM may write, in bytes.
    FileSize(u64),
    /// How many descriptors it may have open.
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

/// Every limit of a VMM, decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The largest file it may write, in bytes; `None` leaves what the caller has.
    pub file_size: Option<u64>,
    /// How many descriptors it may have open.
    pub open_files: u64,
}

impl Default for Limits {
    /// 2048 descriptors, files of any size, as with the original jailer.
    fn default() -> Self {
        Self { file_size: None, open_files: 2048 }
    }
}

impl Extend<ResourceLimit> for Limits {
    /// The last of several limits of one kind counts.
    fn extend<I: IntoIterator<Item = ResourceLimit>>(&mut self, limits: I) {
        for limit in limits {
            match limit {
                ResourceLimit::FileSize(bytes) => self.file_size = Some(bytes),
                ResourceLimit::OpenFiles(count) => self.open_files = count,
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
        assert_eq!(limits, Limits { file_size: Some(5), open_files: 20 });
    }

    #[test]
    fn a_limit_is_a_known_name_and_a_number() {
        assert_eq!("no-file".parse::<ResourceLimit>(), Err(SpecError::LimitFormat("no-file".into())));
        assert_eq!("cores=1".parse::<ResourceLimit>(), Err(SpecError::LimitName("cores".into())));
        assert!(matches!("fsize=-1".parse::<ResourceLimit>(), Err(SpecError::LimitValue(..))));
    }
}
