//! What of a host is good for jails, and what is not: facts are read once, and findings follow from them alone.

mod checks;
mod facts;
mod settings;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

pub use facts::{BaseFacts, HostFacts, Question};
pub use settings::LONGEST_SOCKET_PATH;

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

/// What follows from the facts, in an order that stays.
pub fn diagnose(facts: &HostFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    checks::kernel(facts, &mut findings);
    checks::privileges(facts, &mut findings);
    checks::cgroups(facts, &mut findings);
    checks::devices(facts, &mut findings);
    checks::base(facts, &mut findings);
    settings::limits(facts, &mut findings);
    settings::names(facts, &mut findings);
    settings::leftovers(facts, &mut findings);
    settings::memory_and_processors(facts, &mut findings);
    findings
}
