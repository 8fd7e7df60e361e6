//! Findings from inside the jail, as the probe reports it.

use serde_json::Value;

use crate::check::doctor::{Finding, Grade};

/// Derives the findings from the probe's report about itself; it entered the jail on the VMM's way.
///
/// # Arguments
/// With `own_pid_namespace`, process 1 is the VMM. A probe that can trace it has not left the jail. `None` means that it
/// is unknown.
pub fn diagnose_inside(report: &Value, own_pid_namespace: Option<bool>) -> Vec<Finding> {
    let escapes = report["escapes"].as_array().map_or(&[][..], Vec::as_slice);
    let mut findings: Vec<Finding> =
        escapes.iter().filter_map(|escape| judge(escape, own_pid_namespace)).collect();
    if escapes.is_empty() {
        findings.push(unknown("escape", "the probe reports no attempt"));
    } else if findings.is_empty() {
        findings.push(Finding::good("escape", format!("none of {} attempts succeeded", escapes.len())));
    }
    findings.push(list("inside-network", &report["network"]));
    findings.push(list("inside-writable", &report["writable"]));
    findings
}

/// The findings if the probe could not look.
///
/// # Arguments
/// `reason`: what failed, and the cause.
pub fn diagnose_no_probe(reason: &str) -> Vec<Finding> {
    ["escape", "inside-network", "inside-writable"].map(|check| unknown(check, reason)).to_vec()
}

fn unknown(check: &'static str, reason: &str) -> Finding {
    Finding::unknown(check, reason, "examine the jail with 'stockade exec'")
}

/// The finding about an attempt that succeeded, or whose result is unknown.
fn judge(escape: &Value, own_pid_namespace: Option<bool>) -> Option<Finding> {
    let text = |key: &str| escape[key].as_str().unwrap_or("?");
    let fact = format!("{}: {} ({})", text("name"), text("what"), text("result"));
    let traces_process_1 = escape["name"] == "trace-other";
    match escape["held"].as_bool() {
        _ if escape["tried"] == false => Some(unknown("escape", &fact)),
        Some(true) => None,
        Some(false) if traces_process_1 && own_pid_namespace == Some(true) => None,
        Some(false) if traces_process_1 && own_pid_namespace.is_none() => Some(unknown(
            "escape",
            &format!("{fact}; process 1 may be the VMM, in a pid namespace of its own"),
        )),
        Some(false) => Some(Finding::bad(
            "escape",
            Grade::Broken,
            fact,
            "there is a way out of the jail",
            "do not use this jail; report it as described in SECURITY.md",
        )),
        None => Some(unknown("escape", &fact)),
    }
}

/// A list that the probe reports.
fn list(check: &'static str, value: &Value) -> Finding {
    let Some(items) = value.as_array() else {
        let reason = value["unknown"].as_str().unwrap_or("the probe does not report it");
        return unknown(check, &format!("the probe cannot read it: {reason}"));
    };
    let text = |item: &Value| item.as_str().map_or(item.to_string(), str::to_owned);
    let items: Vec<String> = items.iter().map(text).collect();
    Finding::good(check, items.join(" "))
}
