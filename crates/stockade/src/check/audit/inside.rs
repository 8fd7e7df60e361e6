//! Findings from inside the jail, as the probe reports it.

use serde_json::Value;

use crate::check::doctor::{Finding, Grade};

/// Derives the findings from the probe's report about itself; it entered the jail on the VMM's way.
///
/// # Arguments
/// With `own_pid_namespace`, process 1 is the VMM. A probe that can trace it has not left the jail.
pub fn diagnose_inside(report: &Value, own_pid_namespace: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let escapes = report["escapes"].as_array().map_or(&[][..], Vec::as_slice);
    let traces_the_vmm = |escape: &Value| own_pid_namespace && escape["name"] == "trace-other";
    let escaped = |escape: &&Value| escape["held"] != true && !traces_the_vmm(escape);
    for escape in escapes.iter().filter(escaped) {
        let text = |key: &str| escape[key].as_str().unwrap_or("?");
        findings.push(Finding::bad(
            "escape",
            Grade::Broken,
            format!("{}: {} ({})", text("name"), text("what"), text("result")),
            "there is a way out of the jail",
            "do not use this jail; report it as described in SECURITY.md",
        ));
    }
    if escapes.is_empty() {
        findings.push(Finding::bad(
            "escape",
            Grade::Broken,
            "the probe reports no attempt",
            "nothing is known about the inside of the jail",
            "examine the jail with 'stockade exec'",
        ));
    } else if findings.is_empty() {
        findings.push(Finding::good("escape", format!("none of {} attempts succeeded", escapes.len())));
    }
    let list = |key: &str| -> Vec<String> {
        let items = report[key].as_array().into_iter().flatten();
        items.map(|item| item.as_str().map_or(item.to_string(), str::to_owned)).collect()
    };
    findings.push(Finding::good("inside-network", list("network").join(" ")));
    findings.push(Finding::good("inside-writable", list("writable").join(" ")));
    findings
}
