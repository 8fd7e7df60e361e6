//! `stockade ps`: lists the jails by their receipts.

use std::process::ExitCode;

use clap::Args;
use stockade::{ExitStatus, Known, Listing};

use crate::flags::state::StateArgs;
use crate::select::FilterArgs;
use crate::terminal::output::{Failure, escape_control, info, print, print_json, require_root_to_look};
use crate::terminal::time::short;
use crate::terminal::width;

/// Arguments of `ps`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stockade ps --filter state=running --filter older=1h
  stockade rm $(stockade ps -q --filter state=exited)")]
pub(crate) struct PsArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Print only the IDs.
    #[arg(short, long)]
    quiet: bool,
    /// List all jails (the default).
    #[arg(short, long, hide = true)]
    all: bool,
    /// Print a JSON list.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) state: StateArgs,
}

pub(crate) fn ps(args: &PsArgs) -> Result<ExitCode, Failure> {
    require_root_to_look("ps")?;
    let mut listings = args.state.store()?.list()?;
    listings.retain(|listing| args.filter.fit(listing));
    if args.json {
        print_json(&listings)?;
    } else if args.quiet {
        print(&listings.iter().flat_map(|listing| [listing.id.as_str(), "\n"]).collect::<String>())?;
    } else {
        print(&table(&listings))?;
    }
    for problem in listings.iter().filter_map(|listing| listing.problem.as_ref()) {
        info(problem);
    }
    Ok(ExitCode::SUCCESS)
}

fn table(listings: &[Listing]) -> String {
    let width = listings.iter().map(|listing| width::of(listing.id.as_str())).max().unwrap_or(0).max(2);
    let exits: Vec<String> = listings.iter().map(exit).collect();
    let exit_width = exits.iter().map(String::len).max().unwrap_or(0).max(4);
    let row = |id: &str, pid: &str, state: &str, exit: &str, age: &str, vmm: &str| {
        format!("{}  {pid:>7}  {state:9}  {exit:>exit_width$}  {age:>4}  {vmm}\n", width::padded(id, width))
    };
    let mut text = row("ID", "PID", "STATE", "EXIT", "AGE", "VMM");
    for (Listing { id, pid, state, age, vmm, .. }, exit) in listings.iter().zip(&exits) {
        let pid = pid.map_or("-".to_owned(), |pid| pid.to_string());
        let age = age.map_or("-".to_owned(), short);
        let vmm = vmm.as_deref().map_or("-".to_owned(), escape_control);
        text += &row(id.as_str(), &pid, &state.to_string(), exit, &age, &vmm);
    }
    text
}

/// The exit code, as `wait` and a shell print it, and whether the kernel killed a process of the jail because memory ran out.
fn exit(listing: &Listing) -> String {
    let code = match listing.ended {
        None | Some(ExitStatus::Unknown) => "-".to_owned(),
        Some(ended) => ended.shell_code().to_string(),
    };
    match listing.oom_kills {
        Some(Known::Fact(1..)) => code + "/oom",
        Some(_) | None => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_in_every_script() {
        let jail = |id: &str| Listing::corrupt(id.parse().expect("an id"), String::new());
        let table = table(&[jail("vm-1"), jail("漢字-1")]);
        let lines = [
            "ID          PID  STATE      EXIT   AGE  VMM",
            "vm-1          -  corrupt       -     -  -",
            "漢字-1        -  corrupt       -     -  -",
        ];
        assert_eq!(table, lines.join("\n") + "\n");
    }

    #[test]
    fn an_exit_status_is_printed_as_a_shell_reports_it() {
        let of = |ended, oom_kills| {
            let listing = Listing::corrupt("vm".parse().expect("an id"), String::new());
            exit(&Listing { ended, oom_kills, ..listing })
        };
        assert_eq!(of(None, None), "-");
        for (ended, text) in
            [(ExitStatus::Exited(3), "3"), (ExitStatus::Killed(9), "137"), (ExitStatus::Unknown, "-")]
        {
            assert_eq!(of(Some(ended), None), text);
            assert_eq!(of(Some(ended), Some(Known::Fact(0))), text);
            assert_eq!(of(Some(ended), Some(Known::unknown("no permission"))), text);
            assert_eq!(of(Some(ended), Some(Known::Fact(2))), format!("{text}/oom"));
        }
    }
}
