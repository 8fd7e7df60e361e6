//! `stockade inspect`: prints all facts about jails.

mod tree;

use std::fmt::{Display, Write};
use std::process::ExitCode;

use clap::Args;
use stockade::Known;
use stockade::inspect::{Inspection, Process};

use crate::select::{IdMatch, SelectArgs};
use crate::terminal::output::{Failure, escape_control, print, print_json, require_root_to_look};
use crate::terminal::time::short;
use tree::Style;

/// Arguments of `inspect`.
#[derive(Debug, Args)]
#[command(after_help = "An ID prefix is accepted if it is unique.

Examples:
  stockade inspect vm-1 --json
  stockade inspect --tree vm-1
  stockade inspect --filter state=abandoned")]
pub(crate) struct InspectArgs {
    /// Draw each jail as a tree of its mounts, namespace, cgroups and processes.
    #[arg(long, conflicts_with = "json")]
    tree: bool,
    /// Print JSON: an object for a single ID, otherwise a list.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    jails: SelectArgs,
}

pub(crate) fn inspect(args: &InspectArgs) -> Result<ExitCode, Failure> {
    require_root_to_look("inspect")?;
    let (store, selection) = args.jails.select(IdMatch::Prefix, |_| true)?;
    let single = selection.single;
    let (ids, code) = selection.known();
    // A jail that was removed after the selection is omitted.
    let looks = ids.iter().filter_map(|id| store.inspect(id).transpose());
    let found = looks.collect::<Result<Vec<_>, _>>()?;
    match (&found[..], args.json) {
        ([one], true) if single => print_json(one)?,
        ([], true) if single => (),
        (all, true) => print_json(&all)?,
        (all, false) if args.tree => {
            let style = Style::of_locale();
            print(&all.iter().map(|found| tree::of(found).draw(style)).collect::<String>())?;
        }
        (all, false) => print(&all.iter().map(text).collect::<Vec<_>>().join("\n"))?,
    }
    Ok(code)
}

/// One row for each known fact.
fn text(found: &Inspection) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &dyn Display| {
        let _ = writeln!(text, "{name:10} {}", escape_control(&value.to_string()));
    };
    row("jail", &found.id);
    row("state", &format!("{}{}", found.state, age(found)));
    let processes = [("VMM", found.vmm), ("monitor", found.monitor), ("owned by", found.keeper)];
    for (name, process) in processes.into_iter().filter_map(|(name, process)| Some((name, process?))) {
        row(name, &describe(process));
    }
    match (found.ended, &found.oom_kills) {
        (Some(ended), kills) => row("exit", &ended.describe(kills.as_ref())),
        // It runs, and has lost a child; or nothing recorded its exit status.
        (None, Some(Known::Fact(kills @ 1..))) => {
            row("memory", &format!("ran out; processes killed by the kernel: {kills}"));
        }
        (None, _) => (),
    }
    found.locked_by.iter().for_each(|pid| row("locked by", &format!("pid {pid}")));
    found.problem.iter().for_each(|problem| row("problem", problem));
    let paths = &found.paths;
    row("receipt", &paths.receipt);
    paths.root.iter().for_each(|path| row("root", path));
    paths.pid_file.iter().for_each(|path| row("pid file", path));
    paths.sockets.iter().for_each(|path| row("socket", path));
    paths.logs.iter().for_each(|path| row("log", path));
    paths.netns.iter().for_each(|path| row("netns", path));
    paths.cgroups.iter().for_each(|path| row("cgroup", path));
    for (title, steps) in
        [("created, and undone from the end:", &found.steps), ("in the VMM's process:", &found.enter)]
    {
        if !steps.is_empty() {
            let _ = writeln!(text, "{title}");
        }
        for (number, step) in (1..).zip(steps) {
            let _ = writeln!(text, "{number:4}  {}", escape_control(step));
        }
    }
    text
}

/// The age of the jail, to follow its state.
fn age(found: &Inspection) -> String {
    found.age_seconds.map(|age| format!(", created {} ago", short(age))).unwrap_or_default()
}

fn describe(process: Process) -> String {
    let exited = if process.alive { "" } else { ", exited" };
    format!("pid {}{exited}", process.pid)
}
