//! Facts that may be inaccessible.

use serde::Serialize;
use std::fmt::Display;

/// A fact, or the reason why it is unknown.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Known<T> {
    /// Printed as the fact itself.
    Fact(T),
    /// Printed as `{"unknown": reason}`.
    Unknown {
        /// The reason.
        unknown: String,
    },
}

impl<T, E: Display> From<Result<T, E>> for Known<T> {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(fact) => Self::Fact(fact),
            Err(reason) => Self::Unknown { unknown: reason.to_string() },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_is_printed_plainly_and_a_failure_with_its_reason() {
        let fact: Known<u8> = Ok::<_, String>(7).into();
        assert_eq!(serde_json::to_string(&fact).unwrap(), "7");
        let unknown: Known<u8> = Err("no such thing").into();
        assert_eq!(serde_json::to_string(&unknown).unwrap(), r#"{"unknown":"no such thing"}"#);
    }
}
