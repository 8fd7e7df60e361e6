//! `stockade create`: creates jails that persist.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use stockade::spec::{HostPath, JailId};

use crate::batch::request::{create_all, persist_all};
use crate::batch::template_mounts::ensure_template_mounts;
use crate::jail_file::Described;
use crate::terminal::output::{Failure, print, print_json, require_root};
use crate::terminal::signals::{check_no_signal, stop_signals};

/// Arguments of `create`, besides the description of the jail.
#[derive(Debug, Args)]
#[command(
    override_usage = "stockade create [OPTIONS] --id <ID> --exec-file <FILE> [-- <VMM ARGUMENTS>...]
       stockade create [OPTIONS] -f <FILE> [--only <ID>] [-- <VMM ARGUMENTS>...]",
    after_help = "Examples:
  stockade create --id vm-1 --exec-file /usr/local/bin/firecracker --netns vm-1
  stockade create -f jails.toml"
)]
pub(crate) struct CreateArgs {
    /// Print a JSON list of the created jails, with their roots.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A created jail in the JSON output.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a JailId,
    root: HostPath,
}

pub(crate) fn create(args: &Described<CreateArgs>) -> Result<ExitCode, Failure> {
    let requests = args.requests()?;
    require_root("create")?;
    ensure_template_mounts();
    // From here on a signal waits until the jails are removed, or persist.
    let signals = stop_signals()?;
    let created = create_all(&requests, &signals)?;
    check_no_signal(&signals, "all jails were created")?;
    let roots: Vec<HostPath> = created.iter().map(|created| created.receipt().root()).collect();
    persist_all(&requests, created)?;
    let rows: Vec<Row<'_>> =
        requests.iter().zip(roots).map(|(request, root)| Row { id: request.id(), root }).collect();
    if requests.iter().any(|request| request.description.args.own.json) {
        print_json(&rows)?;
    } else {
        print(&rows.iter().flat_map(|row| [row.id.as_str(), "\n"]).collect::<String>())?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_flag_has_a_key_in_jail_files() {
        crate::jail_file::check_keys_of::<super::CreateArgs>();
    }
}
