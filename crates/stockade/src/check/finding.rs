//! What a check has found.

use std::fmt;

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// Jails work, and something about them is worse than it could be.
    Warning,
    /// Jails do not work.
    Broken,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Broken => "broken",
        })
    }
}

/// What one check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was checked; the names stay.
    pub check: &'static str,
    /// How bad it is.
    pub grade: Grade,
    /// What is so.
    pub fact: String,
    /// What that breaks.
    pub breaks: Option<&'static str>,
    /// The command, or the advice, that mends it.
    pub mend: Option<String>,
}

impl Finding {
    pub(crate) fn good(check: &'static str, fact: impl Into<String>) -> Self {
        Self { check, grade: Grade::Good, fact: fact.into(), breaks: None, mend: None }
    }

    pub(crate) fn bad(
        check: &'static str,
        grade: Grade,
        fact: impl Into<String>,
        breaks: &'static str,
        mend: impl Into<String>,
    ) -> Self {
        Self { check, grade, fact: fact.into(), breaks: Some(breaks), mend: Some(mend.into()) }
    }
}
