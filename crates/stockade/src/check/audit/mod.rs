//! Checks of a running jail: it is read once into [`AuditFacts`], and [`diagnose`] derives the findings from them alone.
//!
//! The facts come from the kernel, not from the receipt. So a finding shows a request that is not in force.

mod checks;
mod facts;
mod inside;
mod limits;
mod resources;
#[cfg(test)]
mod tests;
mod tree;

pub use crate::spec::known::Known;
pub use facts::{AuditFacts, Descriptor, Reach, Setting};
pub use inside::{diagnose_inside, diagnose_no_probe};
pub use tree::{Special, TreeFacts};

use crate::check::doctor::Finding;

/// Derives the findings from the facts, in a stable order.
pub fn diagnose(facts: &AuditFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    checks::identity(facts, &mut findings);
    checks::privileges(facts, &mut findings);
    checks::landlock(facts, &mut findings);
    checks::namespaces(facts, &mut findings);
    checks::root(facts, &mut findings);
    checks::descriptors(facts, &mut findings);
    resources::cgroups(facts, &mut findings);
    resources::limits(facts, &mut findings);
    resources::tree(&facts.tree, &mut findings);
    resources::neighbours(facts, &mut findings);
    findings
}
