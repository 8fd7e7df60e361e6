//! `stockade audit`: how well a jail that runs holds its VMM.

mod probe;
mod sarif;

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use stockade::Store;
use stockade::audit::{AuditFacts, diagnose, diagnose_inside};
use stockade::doctor::{Finding, Grade};
use stockade::spec::JailId;

use crate::args::StateArgs;
use crate::doctor::text;
use crate::jails::no_jail;
use crate::output::{Failure, print, print_json, require_root_to_look};

/// Arguments of `audit`.
#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is 1 if a finding is graded broken; with --against it is 1 if the jails differ.

Examples:
  stockade audit --probe vm-1
  stockade audit --against vm-2 vm-1"
)]
// One for each flag that is on or off.
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct AuditArgs {
    /// Name of the jail.
    id: JailId,
    /// Look from inside too: a visitor on the VMM's way into the jail reports, and tries to get out.
    #[arg(long)]
    probe: bool,
    /// Compare with this jail, and tell only what differs.
    #[arg(long, value_name = "ID")]
    against: Option<JailId>,
    /// Tell only what is not as it should be.
    #[arg(short, long)]
    quiet: bool,
    /// Print one JSON object, with the facts.
    #[arg(long, conflicts_with_all = ["sarif", "against"])]
    json: bool,
    /// Print the findings as SARIF 2.1.0.
    #[arg(long, conflicts_with = "against")]
    sarif: bool,
    #[command(flatten)]
    state: StateArgs,
}

/// All that is found of one jail.
#[derive(Serialize)]
struct Audit {
    /// Whether no finding is graded broken.
    ok: bool,
    id: JailId,
    findings: Vec<Finding>,
    facts: AuditFacts,
    /// The probe's report, if it was asked for.
    inside: Option<Value>,
}

impl Audit {
    fn of(store: &Store, id: &JailId, probe: bool) -> Result<Self, Failure> {
        let facts = AuditFacts::read(store, id)?.ok_or_else(|| no_jail(id))?;
        let inside = if probe { Some(probe::look(store, id)?) } else { None };
        let mut findings = diagnose(&facts);
        let own_pids = !facts.shared_namespaces.iter().any(|kind| kind == "pid");
        findings.extend(inside.iter().flat_map(|report| diagnose_inside(report, own_pids)));
        let ok = findings.iter().all(|finding| finding.grade < Grade::Broken);
        Ok(Self { ok, id: id.clone(), findings, facts, inside })
    }
}

pub(crate) fn audit(args: &AuditArgs) -> Result<ExitCode, Failure> {
    require_root_to_look("audit")?;
    let store = args.state.store()?;
    let mut audit = Audit::of(&store, &args.id, args.probe)?;
    if let Some(other) = &args.against {
        let differences = differences(&audit, &Audit::of(&store, other, args.probe)?);
        let code = if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        return print(&differences).map(|()| code);
    }
    if args.quiet {
        audit.findings.retain(|finding| finding.grade > Grade::Good);
    }
    if args.sarif {
        print_json(&sarif::log(&audit.id, &audit.findings))?;
    } else if args.json {
        print_json(&audit)?;
    } else {
        print(&text(&audit.findings))?;
    }
    Ok(if audit.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line for each finding that only one of the two has.
fn differences(one: &Audit, other: &Audit) -> String {
    let mut text = String::new();
    for (audit, counterpart) in [(one, other), (other, one)] {
        for finding in audit.findings.iter().filter(|finding| !counterpart.findings.contains(finding)) {
            let Finding { check, grade, fact, .. } = finding;
            let _ = writeln!(text, "{}: {grade:8} {check:18} {fact}", audit.id);
        }
    }
    text
}
