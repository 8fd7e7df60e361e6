//! `stockade plan`: the dry run.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use stockade::spec::{HostPath, JailSpec};
use stockade::step::Step;
use stockade::step::enter::EnterStep;
use stockade::{Host, Layout, Way, placement};

use crate::args::{JailArgs, PLACE_FLAG, StateArgs};
use crate::output::{Failure, print, print_json};
use crate::placements::not_placed;

/// A step of either list.
#[derive(Serialize)]
struct Row<'a> {
    number: usize,
    /// `prepare` is undone from its end; `enter` ends with the process.
    phase: &'static str,
    text: String,
    step: Detail<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Detail<'a> {
    Prepare(&'a Step),
    Enter(&'a EnterStep),
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  stockade plan --id vm-1 --exec-file /usr/bin/busybox --cgroup pids.max=64 --json")]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) jail: JailArgs,
    #[command(flatten)]
    pub(crate) state: StateArgs,
    /// Print a list for programs.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn plan(args: &PlanArgs) -> Result<ExitCode, Failure> {
    let spec = args.jail.spec()?;
    let host = Host::read_for(&spec)?;
    let mut plan = stockade::plan(&spec, &host, Way::Launch)?;
    let near = existing_part(&spec);
    for asked in spec.placements() {
        plan.place(placement(spec.owner, &near, &asked)?);
    }
    for asked in args.jail.placements()? {
        let placed = placement(spec.owner, &near, &asked);
        plan.place(placed.map_err(|error| not_placed(PLACE_FLAG, asked.source(), &error))?);
    }
    let prepare = plan.prepare.iter().map(|step| ("prepare", step.to_string(), Detail::Prepare(step)));
    let enter = plan.enter.iter().map(|step| ("enter", step.to_string(), Detail::Enter(step)));
    let rows: Vec<Row<'_>> = prepare
        .chain(enter)
        .zip(1..)
        .map(|((phase, text, step), number)| Row { number, phase, text, step })
        .collect();
    if args.json {
        print_json(&rows)?;
    } else {
        print(&table(&rows))?;
    }
    Ok(ExitCode::SUCCESS)
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
