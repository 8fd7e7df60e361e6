//! `stockade audit`: checks how well a running jail confines its VMM.

mod comparison;
mod probe;
mod sarif;

use std::process::ExitCode;

use clap::Args;
use comparison::Comparison;
use serde::Serialize;
use serde_json::Value;
use stockade::audit::{AuditFacts, diagnose, diagnose_inside, diagnose_no_probe};
use stockade::doctor::{Finding, Grade};
use stockade::spec::JailId;
use stockade::{JailState, Listing, Store};

use crate::flags::lookup::{find, no_such_jail};
use crate::select::{IdMatch, SelectArgs};
use crate::terminal::findings::FindingsStyle;
use crate::terminal::output::{Code, Failure, print_json, print_styled, require_root_to_look};

/// Arguments of `audit`.
#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is 1 if a finding is graded broken, or with --against if the jails differ. A finding is graded unknown, with the reason, if audit could not look or the probe could not try; that does not change the exit code. An ID prefix is accepted if it is unique.

Examples:
  stockade audit --probe vm-1
  stockade audit --all --quiet
  stockade audit --against vm-2 vm-1
  stockade audit --json --against vm-2 vm-1"
)]
// One bool for each switch.
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct AuditArgs {
    /// Also run a probe in the jail, which reports its view and tries to escape.
    #[arg(long)]
    probe: bool,
    /// Compare with this jail, and print only the differences.
    #[arg(long, value_name = "ID")]
    against: Option<JailId>,
    /// Omit the findings that are good.
    #[arg(short, long)]
    quiet: bool,
    /// Print JSON with all facts: an object for a single ID, otherwise a list.
    #[arg(long, conflicts_with = "sarif")]
    json: bool,
    /// Print the findings as SARIF 2.1.0.
    #[arg(long)]
    sarif: bool,
    #[command(flatten)]
    jails: SelectArgs,
}

/// The audit of one jail.
#[derive(Serialize)]
struct Audit {
    /// Whether no finding is graded broken.
    ok: bool,
    id: JailId,
    findings: Vec<Finding>,
    facts: AuditFacts,
    /// The probe's report; `None` without `--probe`, and if the probe could not look.
    inside: Option<Value>,
}

impl Audit {
    fn of(store: &Store, id: &JailId, probe: bool) -> Result<Self, Failure> {
        let facts = AuditFacts::read(store, id)?.ok_or_else(|| no_such_jail(id))?;
        let inside = if probe { Some(probe::run(store, id)?) } else { None };
        let mut findings = diagnose(&facts);
        findings.extend(match &inside {
            None => Vec::new(),
            Some(Ok(report)) => diagnose_inside(report, facts.has_own_pid_namespace()),
            Some(Err(reason)) => diagnose_no_probe(reason),
        });
        let inside = inside.and_then(Result::ok);
        let ok = findings.iter().all(|finding| finding.grade < Grade::Broken);
        Ok(Self { ok, id: id.clone(), findings, facts, inside })
    }
}

pub(crate) fn audit(args: &AuditArgs) -> Result<ExitCode, Failure> {
    require_root_to_look("audit")?;
    let runs = |jail: &Listing| jail.state == JailState::Running;
    let (store, selection) = args.jails.select(IdMatch::Prefix, runs)?;
    let single = selection.single;
    let (ids, mut code) = selection.known();
    let mut audits = Vec::new();
    for id in &ids {
        match Audit::of(&store, id, args.probe) {
            Ok(audit) => audits.push(audit),
            Err(failure) => code = failure.report(),
        }
    }
    if let Some(other) = &args.against {
        let other = Audit::of(&store, &find(&store, other)?, args.probe)?;
        let compared: Vec<_> = audits.iter().map(|audit| Comparison::of(audit, &other)).collect();
        print_differences(args, &compared, single)?;
        let alike = compared.iter().all(|comparison| comparison.alike);
        return Ok(if alike { code } else { Code::Failed.into() });
    }
    if args.quiet {
        let bad = |finding: &Finding| finding.grade > Grade::Good;
        for audit in &mut audits {
            audit.findings.retain(bad);
        }
    }
    match &audits[..] {
        [] if single => (),
        all if args.sarif => {
            let findings = |audit| findings(audit).collect();
            print_json(&sarif::log(all.iter().map(findings)))?;
        }
        [one] if single && args.json => print_json(one)?,
        all if args.json => print_json(&all)?,
        [one] if single => print_styled(&FindingsStyle::for_stdout().findings(&one.findings))?,
        all => print_styled(&all.iter().map(titled).collect::<Vec<_>>().join("\n"))?,
    }
    Ok(if audits.iter().all(|audit| audit.ok) { code } else { Code::Failed.into() })
}

fn print_differences(args: &AuditArgs, compared: &[Comparison], single: bool) -> Result<(), Failure> {
    match compared {
        [] if single => Ok(()),
        all if args.sarif => print_json(&sarif::log(all.iter().map(|one| one.findings().collect()))),
        [one] if single && args.json => print_json(one),
        all if args.json => print_json(&all),
        all => print_styled(&all.iter().map(Comparison::text).collect::<String>()),
    }
}

/// Each finding with the id of its jail.
fn findings(audit: &Audit) -> impl Iterator<Item = (&JailId, &Finding)> {
    audit.findings.iter().map(|finding| (&audit.id, finding))
}

/// The findings of one of several jails, below its id.
fn titled(audit: &Audit) -> String {
    format!("jail {}\n{}", audit.id, FindingsStyle::for_stdout().findings(&audit.findings))
}
