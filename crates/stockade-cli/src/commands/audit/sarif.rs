//! Findings as SARIF, the format of code scanners and their dashboards.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stockade::doctor::{Finding, Grade};
use stockade::spec::JailId;

/// A SARIF log with one run for each jail.
pub(super) fn log<'a>(jails: impl Iterator<Item = Vec<(&'a JailId, &'a Finding)>>) -> Value {
    json!({
        "version": "2.1.0",
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "runs": jails.map(|findings| run(&findings)).collect::<Vec<_>>(),
    })
}

fn run(findings: &[(&JailId, &Finding)]) -> Value {
    let checks: BTreeSet<&str> = findings.iter().map(|(_, finding)| finding.check).collect();
    let rules: Vec<Value> = checks.into_iter().map(|check| json!({ "id": check })).collect();
    let results: Vec<Value> = findings.iter().map(|(id, finding)| result(id, finding)).collect();
    let driver = json!({ "name": "stockade", "version": env!("CARGO_PKG_VERSION"), "rules": rules });
    json!({ "tool": { "driver": driver }, "results": results })
}

fn result(id: &JailId, finding: &Finding) -> Value {
    let (kind, level) = match finding.grade {
        Grade::Good => ("pass", "none"),
        Grade::Note => ("fail", "note"),
        // There was not enough information to decide.
        Grade::Unknown => ("open", "none"),
        Grade::Warning => ("fail", "warning"),
        Grade::Broken => ("fail", "error"),
    };
    let parts = [Some(finding.fact.as_str()), finding.effect, finding.fix.as_deref()];
    let text: Vec<&str> = parts.into_iter().flatten().collect();
    json!({
        "ruleId": finding.check,
        "kind": kind,
        "level": level,
        "message": { "text": text.join("; ") },
        "locations": [{ "logicalLocations": [{ "name": id, "kind": "resource" }] }],
    })
}
