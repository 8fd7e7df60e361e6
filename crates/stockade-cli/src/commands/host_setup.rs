//! `stockade host-setup`: creates the template mount namespace, which serves every jail until the next boot.

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
    /// Remove the template mount namespace; running jails are not affected.
    #[arg(long)]
    remove: bool,
    /// Print a JSON report.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    /// The file that pins the template mount namespace, if it exists.
    #[serde(rename = "skeleton")]
    template: Option<String>,
    changed: bool,
}

pub(crate) fn host_setup(args: &HostSetupArgs) -> Result<ExitCode, Failure> {
    require_root("host-setup")?;
    let report = if args.remove {
        Report { template: None, changed: TemplateMounts::remove()? }
    } else {
        let changed = TemplateMounts::find().is_err();
        Report { template: Some(TemplateMounts::make()?.pin().to_string()), changed }
    };
    if args.json {
        print_json(&report)?;
    } else {
        print(&match (&report.template, report.changed) {
            (Some(pin), true) => format!("created the template mount namespace '{pin}'\n"),
            (Some(pin), false) => format!("the template mount namespace '{pin}' exists\n"),
            (None, true) => "removed the template mount namespace\n".to_owned(),
            (None, false) => "no template mount namespace exists\n".to_owned(),
        })?;
    }
    Ok(ExitCode::SUCCESS)
}
