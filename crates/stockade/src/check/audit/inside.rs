//! Findings from inside: what the probe reports of where it is.

use serde_json::Value;

use crate::check::doctor::{Finding, Grade};

/// What follows from the probe's report, which is one of its own process on the VMM's way into the jail.
///
/// # Arguments
/// With `own_pid_namespace` process 1 is the VMM, and whoever reaches that is where it was.
pub fn diagnose_inside(report: &Value, own_pid_namespace: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let escapes = report["escapes"].as_array().map_or(&[][..], Vec::as_slice);
    let reaches_the_vmm = |escape: &Value| own_pid_namespace && escape["name"] == "trace-other";
    let got_out = |escape: &&Value| escape["held"] != true && !reaches_the_vmm(escape);
    for escape in escapes.iter().filter(got_out) {
        let word = |key: &str| escape[key].as_str().unwrap_or("?");
        findings.push(Finding::bad(
            "escape",
            Grade::Broken,
            format!("{}: {} ({})", word("name"), word("what"), word("result")),
            "there is a way out of the jail",
            "do not use this jail; report it as SECURITY.md says",
        ));
    }
    if escapes.is_empty() {
        findings.push(Finding::bad(
            "escape",
            Grade::Broken,
            "the probe has not tried any",
            "nothing is shown of the inside",
            "stockade exec, and look for yourself",
        ));
    } else if findings.is_empty() {
        findings.push(Finding::good("escape", format!("none of {} attempts", escapes.len())));
    }
    let list = |key: &str| -> Vec<String> {
        let items = report[key].as_array().into_iter().flatten();
        items.map(|item| item.as_str().map_or(item.to_string(), str::to_owned)).collect()
    };
    findings.push(Finding::good("inside-network", list("network").join(" ")));
    findings.push(Finding::good("inside-writable", list("writable").join(" ")));
    findings
}
