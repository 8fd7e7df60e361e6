//! `stockade host-setup`: what serves every jail until the next boot.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use stockade::TemplateMounts;

use crate::terminal::output::{Failure, print, print_json, require_root};

/// Arguments of `host-setup`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  sudo stockade host-setup")]
pub(crate) struct HostSetupArgs {
    /// Remove it again; jails that run are not touched.
    #[arg(long)]
    remove: bool,
    /// Print a report for programs.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    /// Where the skeleton mount namespace is pinned, if it is.
    skeleton: Option<String>,
    /// Whether this call has changed anything.
    changed: bool,
}

pub(crate) fn host_setup(args: &HostSetupArgs) -> Result<ExitCode, Failure> {
    require_root("host-setup")?;
    let report = if args.remove {
        Report { skeleton: None, changed: TemplateMounts::remove()? }
    } else {
        let changed = TemplateMounts::find().is_err();
        Report { skeleton: Some(TemplateMounts::make()?.pin().to_string()), changed }
    };
    if args.json {
        print_json(&report)?;
    } else {
        print(&match (&report.skeleton, report.changed) {
            (Some(pin), true) => format!("made the skeleton mount namespace {pin}\n"),
            (Some(pin), false) => format!("the skeleton mount namespace {pin} is there\n"),
            (None, true) => "removed the skeleton mount namespace\n".to_owned(),
            (None, false) => "there was no skeleton mount namespace\n".to_owned(),
        })?;
    }
    Ok(ExitCode::SUCCESS)
}
