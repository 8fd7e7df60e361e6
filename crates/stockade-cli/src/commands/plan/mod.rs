//! `stockade plan`: prints the steps of `run`, and changes nothing.

mod difference;

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use stockade::entry::EnterStep;
use stockade::spec::{HostPath, JailId, JailSpec};
use stockade::steps::Step;
use stockade::{ErrorKind, Host, JailState, LaunchMode, Layout, Plan, Receipt, Stripped, decide_placement};

use crate::batch::request::JailRequest;
use crate::flags::jail::flag_of;
use crate::flags::placement::not_placed;
use crate::jail_file::Described;
use crate::terminal::output::{Code, Failure, info, print, print_json};
use difference::{Difference, differences as differences_of};

/// A step in the JSON output.
#[derive(Serialize)]
struct Row<'a> {
    number: usize,
    /// `prepare`: undone from the last step to the first. `enter`: ends with the VMM's process.
    phase: &'static str,
    text: String,
    step: Detail<'a>,
    /// The privileges of the host's file that the jail's file would lack.
    #[serde(skip_serializing_if = "Option::is_none")]
    stripped: Option<Stripped>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Detail<'a> {
    Prepare(&'a Step),
    Enter(&'a EnterStep),
}

/// The plan of one jail.
#[derive(Serialize)]
struct Planned<'a> {
    id: &'a JailId,
    /// The state of an existing jail with this id.
    exists: Option<JailState>,
    /// The differences between the existing jail and the plan.
    differences: Vec<Difference>,
    steps: Vec<Row<'a>>,
}

/// Arguments of `plan`, besides the description of the jail.
#[derive(Debug, Args)]
#[command(
    override_usage = "stockade plan [OPTIONS] --id <ID> --exec-file <FILE> [-- <VMM ARGUMENTS>...]
       stockade plan [OPTIONS] -f <FILE> [--only <ID>] [-- <VMM ARGUMENTS>...]",
    after_help = "If a jail with this ID exists, its differences from the plan are printed too, and the exit code is 2. It is 0 without differences, and 1 if the command fails.

Examples:
  stockade plan --id vm-1 --exec-file /usr/bin/busybox --cgroup pids.max=64 --json
  stockade plan -f jails.toml"
)]
pub(crate) struct PlanArgs {
    /// Print a JSON list of the steps; with --file, of the jails.
    #[arg(long)]
    json: bool,
}

pub(crate) fn plan(args: &Described<PlanArgs>) -> Result<ExitCode, Failure> {
    let requests = args.requests()?;
    let plans = requests.iter().map(|request| compute(request).map_err(|failure| request.locate(failure)));
    let plans = plans.collect::<Result<Vec<_>, _>>()?;
    let planned = requests.iter().zip(&plans).map(|(request, plan)| Planned::new(request, plan));
    let planned = planned.collect::<Result<Vec<_>, _>>()?;
    let json = requests.iter().any(|request| request.description.args.own.json);
    match &planned[..] {
        all if json && args.by_files() => print_json(&all)?,
        all if json => all.iter().try_for_each(|planned| print_json(&planned.steps))?,
        all => print(&all.iter().map(|planned| planned.text(args.by_files())).collect::<String>())?,
    }
    let differs = planned.iter().any(|planned| !planned.differences.is_empty());
    Ok(if differs { Code::Differs } else { Code::Done }.into())
}

/// The plan, and the number of its steps before the placements.
fn compute(request: &JailRequest<PlanArgs>) -> Result<(Plan, usize), Failure> {
    let spec = &request.spec;
    let mut plan = stockade::plan(spec, &Host::read_for(spec)?, LaunchMode::Spawn)?;
    let unplaced = plan.prepare.len();
    let near = existing_part(spec);
    for wanted in spec.placements() {
        plan.place(decide_placement(spec.owner, &near, &wanted)?);
    }
    for wanted in &request.placements {
        let placed = decide_placement(spec.owner, &near, wanted);
        plan.place(placed.map_err(|error| not_placed(flag_of(wanted), wanted.source(), &error))?);
    }
    Ok((plan, unplaced))
}

impl<'a> Planned<'a> {
    fn new(request: &'a JailRequest<PlanArgs>, (plan, unplaced): &'a (Plan, usize)) -> Result<Self, Failure> {
        let existing = existing(request)?;
        // An abandoned jail is removed before a new jail of its id is created.
        let is_usable = |receipt: &&Receipt| {
            matches!(receipt.state(), JailState::Created | JailState::Running | JailState::Exited)
        };
        let differences = existing.as_ref().filter(is_usable);
        let differences =
            differences.map(|receipt| differences_of(receipt, &request.spec, &plan.prepare[*unplaced..]));
        Ok(Self {
            id: request.id(),
            exists: existing.as_ref().map(Receipt::state),
            differences: differences.unwrap_or_default(),
            steps: rows(plan),
        })
    }

    fn text(&self, titled: bool) -> String {
        let mut text = if titled { format!("jail {}\n", self.id) } else { String::new() };
        text += &table(&self.steps);
        if let Some(state) = self.exists {
            let comparison = match state {
                JailState::Abandoned => "and is removed when a jail with this id is created",
                _ if self.differences.is_empty() => "and is as described",
                _ => "and differs (is → would be):",
            };
            let _ = writeln!(text, "jail '{}' exists ({state}) {comparison}", self.id);
        }
        for difference in &self.differences {
            let _ = writeln!(text, "      {difference}");
        }
        text
    }
}

/// The receipt of the jail with this id; `None` also if only root may read it.
fn existing(request: &JailRequest<PlanArgs>) -> Result<Option<Receipt>, Failure> {
    match request.store.read(request.id()) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            info(&format!("only root can check whether jail '{}' exists", request.id()));
            Ok(None)
        }
        found => found.map_err(|error| request.locate(error)),
    }
}

fn rows(plan: &Plan) -> Vec<Row<'_>> {
    let prepare = plan.prepare.iter().map(|step| {
        let stripped = step.strips();
        let without = stripped.as_ref().map(|stripped| format!(", without {stripped}"));
        ("prepare", format!("{step}{}", without.unwrap_or_default()), Detail::Prepare(step), stripped)
    });
    let enter = plan.enter.iter().map(|step| ("enter", step.to_string(), Detail::Enter(step), None));
    let rows = prepare.chain(enter).zip(1..);
    rows.map(|((phase, text, step, stripped), number)| Row { number, phase, text, step, stripped }).collect()
}

/// The existing part of the path to the jail's root, which is on the mount that the jail will be on.
fn existing_part(spec: &JailSpec) -> HostPath {
    let root = Layout::new(spec).root();
    let existing = root.as_path().ancestors().find(|path| path.exists());
    existing.unwrap_or(root.as_path()).to_owned().into()
}

fn table(rows: &[Row<'_>]) -> String {
    let mut text = String::new();
    for (phase, title) in [("prepare", "create, and undo from the end:"), ("enter", "in the VMM's process:")]
    {
        let _ = writeln!(text, "{title}");
        for row in rows.iter().filter(|row| row.phase == phase) {
            let _ = writeln!(text, "{:4}  {}", row.number, row.text);
        }
    }
    text
}
