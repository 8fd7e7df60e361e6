//! `stockade plan`: the dry run.

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
use crate::flags::jail::PLACE_FLAG;
use crate::flags::placement::not_placed;
use crate::jail_file::Described;
use crate::terminal::output::{Code, Failure, info, print, print_json};
use difference::{Difference, differences as differences_of};

/// A step of either list.
#[derive(Serialize)]
struct Row<'a> {
    number: usize,
    /// `prepare` is undone from its end; `enter` ends with the process.
    phase: &'static str,
    text: String,
    step: Detail<'a>,
    /// What the host's file has and the jail's would not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    stripped: Option<Stripped>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Detail<'a> {
    Prepare(&'a Step),
    Enter(&'a EnterStep),
}

/// What is planned for one jail.
#[derive(Serialize)]
struct Planned<'a> {
    id: &'a JailId,
    /// How the jail of that id is, if there is one.
    exists: Option<JailState>,
    /// In what that differs from what is planned.
    differences: Vec<Difference>,
    steps: Vec<Row<'a>>,
}

/// What `plan` is asked besides the jail.
#[derive(Debug, Args)]
#[command(
    override_usage = "stockade plan [OPTIONS] --id <ID> --exec-file <FILE> [-- <VMM ARGUMENTS>...]",
    after_help = "If a jail of that id exists, it is told in what it differs from what would be made. The exit
code is 2 then; 0 if nothing differs or no such jail exists, 1 if the command fails.

Examples:
  stockade plan --id vm-1 --exec-file /usr/bin/busybox --cgroup pids.max=64 --json
  stockade plan -f jails.toml"
)]
pub(crate) struct PlanArgs {
    /// Print a list for programs: of the steps; with --file of the jails.
    #[arg(long)]
    json: bool,
}

pub(crate) fn plan(args: &Described<PlanArgs>) -> Result<ExitCode, Failure> {
    let requests = args.requests()?;
    let plans = requests.iter().map(|request| work_out(request).map_err(|failure| request.locate(failure)));
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

/// What would be done, and from where on that is what would be placed.
fn work_out(request: &JailRequest<PlanArgs>) -> Result<(Plan, usize), Failure> {
    let spec = &request.spec;
    let mut plan = stockade::plan(spec, &Host::read_for(spec)?, LaunchMode::Spawn)?;
    let made = plan.prepare.len();
    let near = existing_part(spec);
    for placed in spec.placements() {
        plan.place(decide_placement(spec.owner, &near, &placed)?);
    }
    for wanted in &request.placements {
        let placed = decide_placement(spec.owner, &near, wanted);
        plan.place(placed.map_err(|error| not_placed(PLACE_FLAG, wanted.source(), &error))?);
    }
    Ok((plan, made))
}

impl<'a> Planned<'a> {
    fn new(request: &'a JailRequest<PlanArgs>, (plan, made): &'a (Plan, usize)) -> Result<Self, Failure> {
        let existing = existing(request)?;
        // What a crash left goes before a jail of its id is made.
        let whole = |receipt: &&Receipt| {
            matches!(receipt.state(), JailState::Created | JailState::Running | JailState::Exited)
        };
        let differences = existing.as_ref().filter(whole);
        let differences =
            differences.map(|receipt| differences_of(receipt, &request.spec, &plan.prepare[*made..]));
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
            let like = match state {
                JailState::Abandoned => "and is removed when a jail of that id is made",
                _ if self.differences.is_empty() => "and is as described",
                _ => "and differs (is → would be):",
            };
            let _ = writeln!(text, "jail {} exists ({state}) {like}", self.id);
        }
        for difference in &self.differences {
            let _ = writeln!(text, "      {difference}");
        }
        text
    }
}

/// The receipt of the jail with that id; `None` also where only root may know.
fn existing(request: &JailRequest<PlanArgs>) -> Result<Option<Receipt>, Failure> {
    match request.store.read(request.id()) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            info(&format!("whether jail {} exists already only root may know", request.id()));
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

/// What exists of the way to the jail's root: it tells on which mount the jail will be.
fn existing_part(spec: &JailSpec) -> HostPath {
    let root = Layout::new(spec).root();
    let existing = root.as_path().ancestors().find(|path| path.exists());
    existing.unwrap_or(root.as_path()).to_owned().into()
}

fn table(rows: &[Row<'_>]) -> String {
    let mut text = String::new();
    for (phase, title) in [("prepare", "make, and undo from the end:"), ("enter", "in the VMM's process:")] {
        let _ = writeln!(text, "{title}");
        for row in rows.iter().filter(|row| row.phase == phase) {
            let _ = writeln!(text, "{:4}  {}", row.number, row.text);
        }
    }
    text
}
