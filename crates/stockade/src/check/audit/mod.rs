//! How well a jail that runs holds its VMM: facts are read from outside, and findings follow from them alone.
//!
//! What the kernel tells of a process is not the receipt's word: what was asked for and is not in force is found.

mod checks;
mod facts;
mod held;
mod inside;
mod limits;
#[cfg(test)]
mod tests;
mod tree;

pub use facts::{AuditFacts, Descriptor, Reach, Setting};
pub use inside::diagnose_inside;
pub use tree::{Special, TreeFacts};

use crate::check::doctor::Finding;

/// What follows from the facts, in an order that stays.
pub fn diagnose(facts: &AuditFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    checks::identity(facts, &mut findings);
    checks::privileges(facts, &mut findings);
    checks::landlock(facts, &mut findings);
    checks::namespaces(facts, &mut findings);
    checks::root(facts, &mut findings);
    checks::descriptors(facts, &mut findings);
    held::cgroups(facts, &mut findings);
    held::limits(facts, &mut findings);
    held::tree(&facts.tree, &mut findings);
    held::neighbours(facts, &mut findings);
    findings
}
