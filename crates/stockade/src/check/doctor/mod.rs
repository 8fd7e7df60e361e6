//! Checks of a host: it is read once into [`HostFacts`], and [`diagnose`] derives the findings from them alone.

mod checks;
mod facts;
mod settings;
#[cfg(test)]
mod tests;
mod trials;

pub use super::finding::{Finding, Grade};
pub use facts::{BaseFacts, HostFacts, Question};
pub use settings::LONGEST_SOCKET_PATH;
pub use trials::{Trial, Trials};

/// Derives the findings from the facts, in a stable order.
pub fn diagnose(facts: &HostFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    checks::kernel(facts, &mut findings);
    checks::privileges(facts, &mut findings);
    checks::trials(facts, &mut findings);
    checks::proc(facts, &mut findings);
    checks::cgroups(facts, &mut findings);
    checks::devices(facts, &mut findings);
    checks::base(facts, &mut findings);
    settings::limits(facts, &mut findings);
    settings::names(facts, &mut findings);
    settings::leftovers(facts, &mut findings);
    settings::memory_and_processors(facts, &mut findings);
    findings
}
