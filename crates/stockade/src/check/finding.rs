//! The finding of a check.

use std::fmt;

use serde::Serialize;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Good,
    /// Information.
    Note,
    /// The check could not look, or could not try; the fact is the reason.
    Unknown,
    /// Jails work, but are weaker, slower or more limited than they could be.
    Warning,
    /// Jails do not work.
    Broken,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Broken => "broken",
        })
    }
}

/// The finding of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the check, which is stable.
    pub check: &'static str,
    /// The severity.
    pub grade: Grade,
    /// The fact.
    pub fact: String,
    /// The effect of the fact; `None` if it is good.
    #[serde(rename = "breaks")]
    pub effect: Option<&'static str>,
    /// The fix: a command or advice; `None` if the fact is good.
    #[serde(rename = "mend")]
    pub fix: Option<String>,
}

/// The most objects that a fact names.
const NAMED: usize = 10;

/// Lists the first objects, and counts the others: a jail or a program can create any number of them.
pub(crate) fn listed<T: fmt::Display>(all: impl IntoIterator<Item = T>) -> String {
    let mut all = all.into_iter();
    let named: Vec<String> = all.by_ref().take(NAMED).map(|one| one.to_string()).collect();
    let more = match all.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    named.join(", ") + &more
}

impl Finding {
    pub(crate) fn good(check: &'static str, fact: impl Into<String>) -> Self {
        Self { check, grade: Grade::Good, fact: fact.into(), effect: None, fix: None }
    }

    /// A check without a result.
    ///
    /// # Arguments
    /// `reason`: what could not be read or tried, and the cause.
    pub(crate) fn unknown(check: &'static str, reason: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::bad(check, Grade::Unknown, reason, "this check has no result", fix)
    }

    pub(crate) fn bad(
        check: &'static str,
        grade: Grade,
        fact: impl Into<String>,
        effect: &'static str,
        fix: impl Into<String>,
    ) -> Self {
        Self { check, grade, fact: fact.into(), effect: Some(effect), fix: Some(fix.into()) }
    }
}
