//! The name of a jail.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::SpecError;

/// A jail's id: 1 to 64 bytes of letters and digits (of any script) and `-`, the rule of Firecracker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JailId(String);

impl JailId {
    const LONGEST: usize = 64;

    /// The name of a jail's directory, unchecked.
    pub(crate) fn of_directory(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JailId {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        if text.is_empty() || text.len() > Self::LONGEST {
            return Err(SpecError::IdLength(text.len()));
        }
        match text.chars().enumerate().find(|(_, c)| !(*c == '-' || c.is_alphanumeric())) {
            Some((at, c)) => Err(SpecError::IdCharacter(c, at)),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl TryFrom<String> for JailId {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

impl From<JailId> for String {
    fn from(id: JailId) -> Self {
        id.0
    }
}

impl fmt::Display for JailId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_letters_digits_and_dashes() {
        assert!("vm-1".parse::<JailId>().is_ok());
        assert!("Ümlaut-7".parse::<JailId>().is_ok());
        assert_eq!("a/b".parse::<JailId>(), Err(SpecError::IdCharacter('/', 1)));
        assert_eq!("..".parse::<JailId>(), Err(SpecError::IdCharacter('.', 0)));
    }

    #[test]
    fn an_id_has_1_to_64_bytes() {
        assert_eq!("".parse::<JailId>(), Err(SpecError::IdLength(0)));
        assert!("x".repeat(64).parse::<JailId>().is_ok());
        assert_eq!("x".repeat(65).parse::<JailId>(), Err(SpecError::IdLength(65)));
    }
}
