//! `stockade version`: prints the version and the platform.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::terminal::output::{Failure, print, print_json};

/// The version, with the commit in parentheses if it is known.
pub(crate) const VERSION: &str = env!("STOCKADE_VERSION");

/// Arguments of `version`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  stockade version --json")]
pub(crate) struct VersionArgs {
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    /// The commit of the build; `None` if it is unknown.
    commit: Option<&'static str>,
    architecture: &'static str,
    /// The release of the running kernel.
    kernel: String,
}

pub(crate) fn version(args: &VersionArgs) -> Result<ExitCode, Failure> {
    let commit = env!("STOCKADE_COMMIT");
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        commit: (!commit.is_empty()).then_some(commit),
        architecture: std::env::consts::ARCH,
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
    };
    if args.json {
        print_json(&report)?;
    } else {
        let Report { architecture, kernel, .. } = report;
        print(&format!("stockade {VERSION}\n{architecture}, on Linux {kernel}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}
