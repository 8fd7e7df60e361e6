//! Facts that may be inaccessible.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

/// A fact, or the reason why it is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Known<T> {
    /// Printed as the fact itself.
    Fact(T),
    /// Printed as `{"unknown": reason}`.
    Unknown {
        /// The reason.
        unknown: String,
    },
}

impl<T> Known<T> {
    /// A fact that is unknown for this reason.
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self::Unknown { unknown: reason.into() }
    }

    /// The fact; `None` if it is unknown.
    pub fn fact(&self) -> Option<&T> {
        match self {
            Self::Fact(fact) => Some(fact),
            Self::Unknown { .. } => None,
        }
    }

    /// The fact.
    ///
    /// # Errors
    /// Returns the reason if the fact is unknown.
    pub fn result(&self) -> Result<&T, &str> {
        match self {
            Self::Fact(fact) => Ok(fact),
            Self::Unknown { unknown } => Err(unknown),
        }
    }

    /// Derives a fact from this one.
    pub fn map<U>(self, derive: impl FnOnce(T) -> U) -> Known<U> {
        match self {
            Self::Fact(fact) => Known::Fact(derive(fact)),
            Self::Unknown { unknown } => Known::Unknown { unknown },
        }
    }
}

impl<T: Default> Default for Known<T> {
    fn default() -> Self {
        Self::Fact(T::default())
    }
}

impl<T> From<T> for Known<T> {
    fn from(fact: T) -> Self {
        Self::Fact(fact)
    }
}

/// A result whose error is the reason why a fact is unknown.
pub(crate) fn known<T, E: Display>(result: Result<T, E>) -> Known<T> {
    match result {
        Ok(fact) => Known::Fact(fact),
        Err(reason) => Known::unknown(reason.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_is_printed_plainly_and_a_failure_with_its_reason() {
        let text = |fact: Known<u8>| serde_json::to_string(&fact).expect("JSON");
        assert_eq!(text(known(Ok::<_, String>(7))), "7");
        assert_eq!(text(known(Err("no such thing"))), r#"{"unknown":"no such thing"}"#);
    }
}
