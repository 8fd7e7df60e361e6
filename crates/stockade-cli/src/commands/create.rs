//! `stockade create`: jails made, and left standing.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use stockade::spec::{HostPath, JailId};

use crate::batch::request::{leave_all, prepare_all};
use crate::batch::template_mounts;
use crate::jail_file::Described;
use crate::terminal::output::{Failure, print, print_json, require_root};
use crate::terminal::signals::{demand_none, stop_signals};

/// What `create` is asked besides the jail.
#[derive(Debug, Args)]
#[command(
    override_usage = "stockade create [OPTIONS] --id <ID> --exec-file <FILE> [-- <VMM ARGUMENTS>...]",
    after_help = "Examples:
  stockade create --id vm-1 --exec-file /usr/local/bin/firecracker --netns vm-1
  stockade create -f jails.toml"
)]
pub(crate) struct CreateArgs {
    /// Print for programs which jails were made, and where.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a program is told of a jail that was made.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a JailId,
    root: HostPath,
}

pub(crate) fn create(args: &Described<CreateArgs>) -> Result<ExitCode, Failure> {
    let wishes = args.wishes()?;
    require_root("create")?;
    template_mounts::on_the_side();
    // From here on a signal waits until the jails can be removed, or stand by themselves.
    let signals = stop_signals()?;
    let prepared = prepare_all(&wishes, &signals)?;
    demand_none(&signals, "all was made")?;
    let roots: Vec<HostPath> = prepared.iter().map(|prepared| prepared.receipt().root()).collect();
    leave_all(&wishes, prepared)?;
    let rows: Vec<Row<'_>> =
        wishes.iter().zip(roots).map(|(wish, root)| Row { id: wish.id(), root }).collect();
    if wishes.iter().any(|wish| wish.asked.args.own.json) {
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
