//! The differences between two jails that should be alike.

use serde::Serialize;
use stockade::doctor::Finding;
use stockade::spec::JailId;

use super::Audit;
use crate::terminal::findings::FindingsStyle;

/// The check whose findings always differ.
const OWN: &str = "cgroup";

/// The comparison of a jail with another.
#[derive(Serialize)]
pub(super) struct Comparison<'a> {
    id: &'a JailId,
    against: &'a JailId,
    pub(super) alike: bool,
    differences: Vec<Difference<'a>>,
}

/// The findings of one check that only one of the two has.
#[derive(Serialize)]
struct Difference<'a> {
    check: &'static str,
    of_id: Vec<&'a Finding>,
    of_against: Vec<&'a Finding>,
}

impl<'a> Comparison<'a> {
    pub(super) fn of(one: &'a Audit, other: &'a Audit) -> Self {
        let mut checks: Vec<&str> = Vec::new();
        for finding in one.findings.iter().chain(&other.findings) {
            if finding.check != OWN && !checks.contains(&finding.check) {
                checks.push(finding.check);
            }
        }
        let differences: Vec<_> =
            checks.into_iter().filter_map(|check| Difference::of(check, one, other)).collect();
        Self { id: &one.id, against: &other.id, alike: differences.is_empty(), differences }
    }

    /// Each finding that only one jail has, with the id of that jail.
    pub(super) fn findings(&self) -> impl Iterator<Item = (&'a JailId, &'a Finding)> {
        self.differences.iter().flat_map(|difference| {
            let of = |id, findings: &[&'a Finding]| -> Vec<(&'a JailId, &'a Finding)> {
                findings.iter().map(|finding| (id, *finding)).collect()
            };
            of(self.id, &difference.of_id).into_iter().chain(of(self.against, &difference.of_against))
        })
    }

    /// One line for each differing finding.
    pub(super) fn text(&self) -> String {
        let style = FindingsStyle::for_stdout();
        self.findings().map(|(id, finding)| style.fact(&format!("{id}: "), finding)).collect()
    }
}

impl<'a> Difference<'a> {
    fn of(check: &'static str, one: &'a Audit, other: &'a Audit) -> Option<Self> {
        let only = |these: &'a [Finding], those: &[Finding]| -> Vec<&'a Finding> {
            these.iter().filter(|finding| finding.check == check && !those.contains(finding)).collect()
        };
        let of_id = only(&one.findings, &other.findings);
        let of_against = only(&other.findings, &one.findings);
        let differs = !(of_id.is_empty() && of_against.is_empty());
        differs.then_some(Self { check, of_id, of_against })
    }
}
