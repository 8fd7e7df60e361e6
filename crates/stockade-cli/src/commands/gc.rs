//! `stockade gc`: removes abandoned jails.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;
use stockade::{Collection, TeardownOptions};

use crate::flags::state::StateArgs;
use crate::terminal::output::{
    Failure, escape_control, info, is_quiet, print, print_json, require_root, success_if,
};
use crate::terminal::progress::SharedBar;

/// Arguments of `gc`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  stockade gc --dry-run")]
pub(crate) struct GcArgs {
    #[command(flatten)]
    pub(crate) state: StateArgs,
    /// Print what would be removed, and remove nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Unmount other programs' mounts in the directories of abandoned jails; the mounted files stay.
    #[arg(short, long, conflicts_with = "dry_run")]
    pub(crate) force: bool,
    /// Print a JSON report.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn gc(args: &GcArgs) -> Result<ExitCode, Failure> {
    require_root("gc")?;
    let options = TeardownOptions { unmount_foreign: args.force, ..TeardownOptions::default() };
    let bar = SharedBar::of_removal();
    let collection =
        args.state.store()?.collect_with_progress(args.dry_run, options, &|progress| bar.show(progress))?;
    drop(bar);
    if args.json {
        print_json(&collection)?;
    } else {
        print(&text(&collection, args.dry_run))?;
    }
    for kept in collection.jails.iter().flat_map(|report| &report.shared) {
        info(&format!("kept: {}: {}", kept.what, kept.reason));
    }
    for problem in &collection.problems {
        info(&format!("{}: {}", problem.what, problem.reason));
    }
    Ok(success_if(collection.is_clean()))
}

fn text(collection: &Collection, dry_run: bool) -> String {
    let verb = if dry_run { "would remove" } else { "removed" };
    let mut text = String::new();
    for report in &collection.jails {
        for what in &report.removed {
            let _ = writeln!(text, "{}: {verb} {}", report.id, escape_control(what));
        }
        for left in &report.left {
            let (what, reason) = (escape_control(&left.what), escape_control(&left.reason));
            let _ = writeln!(text, "{}: left {what}: {reason}", report.id);
        }
    }
    if collection.jails.is_empty() && !is_quiet() {
        text.push_str("no abandoned jails\n");
    }
    text
}
