//! `stockade place`: brings files, directories and devices into an existing jail.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use stockade::spec::{Account, JailId, Owner};
use stockade::{How, Jail, Placed, Placement};
use stockade_syscalls::signals::SignalFd;

use crate::flags::lookup::{open, stopped_jail};
use crate::flags::placement::{check_distinct, parse, place_one};
use crate::flags::state::StateArgs;
use crate::terminal::output::{
    Failure, escape_control, ignore_closed_stdout, in_flag, print, print_json, require_root,
};
use crate::terminal::signals::stop_signals;

/// Arguments of `place`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  stockade place vm-1 vmlinux rootfs.img=drives/root.img --read-only")]
pub(crate) struct PlaceArgs {
    /// ID of the jail.
    pub(crate) id: JailId,
    /// Source on the host, name in the jail, options: SRC[=NAME][:ro][:bind|copy|link|node|reflink|share].
    #[arg(required = true, value_name = "SRC[=NAME][:OPTION]...")]
    files: Vec<OsString>,
    /// Default placement method.
    #[arg(long, value_name = "HOW", default_value = "auto",
          value_parser = ["auto", "bind", "copy", "link", "node", "reflink", "share"])]
    how: String,
    /// Make the placed files read-only in the jail.
    #[arg(long)]
    read_only: bool,
    /// Owner in the jail, by numbers or names (default: the jail's user and group).
    #[arg(long, value_name = "USER:GROUP")]
    owner: Option<String>,
    #[command(flatten)]
    pub(crate) state: StateArgs,
    /// Print a JSON list of the placements, with path and method.
    #[arg(long)]
    pub(crate) json: bool,
}

impl PlaceArgs {
    fn placements(&self) -> Result<Vec<Placement>, Failure> {
        let owner = self.owner.as_deref().map(owner).transpose()?;
        let how = How::NAMED.into_iter().find(|how| how.to_string() == self.how).unwrap_or_default();
        let base = |source: &Path| {
            let placement = Placement::new(source).how(how);
            let placement = if self.read_only { placement.read_only() } else { placement };
            owner.map_or(placement.clone(), |owner| placement.owner(owner))
        };
        let parsed = self.files.iter().map(|argument| {
            parse(argument, &base).map_err(|cause| Failure::new(format!("{}: {cause}", argument.display())))
        });
        let placements = parsed.collect::<Result<Vec<_>, _>>()?;
        match (check_distinct(&placements, |_| None), &placements[..]) {
            (Ok(()), _) => Ok(placements),
            // `cp FROM TO` of other tools.
            (Err(failure), [from, to]) if from.source().exists() && !to.source().exists() => {
                let (from, to) = (from.source().display(), to.source().display());
                let text = format!("{}; a name in the jail follows '=', as in '{from}={to}'", failure.line());
                Err(Failure::new(text))
            }
            (Err(failure), _) => Err(failure),
        }
    }
}

/// A placement in the JSON output.
#[derive(Serialize)]
struct Row<'a> {
    source: &'a Path,
    #[serde(flatten)]
    placed: Placed,
}

pub(crate) fn place(args: &PlaceArgs) -> Result<ExitCode, Failure> {
    require_root("place")?;
    let placements = args.placements()?;
    // From here on a signal waits until a partial copy can be removed.
    let signals = stop_signals()?;
    let mut jail = open(&args.state.store()?, &args.id)?;
    let mut rows = Vec::new();
    for placement in &placements {
        let source = placement.source();
        match place_into(&mut jail, placement, &signals) {
            Ok(placed) if args.json => rows.push(Row { source, placed }),
            Ok(placed) => ignore_closed_stdout(print(&format!("{}\n", escape_control(&placed.to_string()))))?,
            Err(failure) => {
                if args.json {
                    ignore_closed_stdout(print_json(&rows))?;
                }
                return Err(failure);
            }
        }
    }
    if args.json {
        print_json(&rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn place_into(jail: &mut Jail, placement: &Placement, signals: &SignalFd) -> Result<Placed, Failure> {
    match jail {
        Jail::Created(jail) => place_one(placement, None, signals, |placement, progress| {
            jail.place_with_progress(placement, progress)
        }),
        Jail::Running(jail) => place_one(placement, None, signals, |placement, progress| {
            jail.place_with_progress(placement, progress)
        }),
        Jail::Exited(stopped) | Jail::Abandoned(stopped) => Err(stopped_jail(stopped)),
    }
}

fn owner(text: &str) -> Result<Owner, Failure> {
    let (user, group) = text.split_once(':').ok_or_else(|| {
        Failure::flag("owner", format!("'{text}' is not USER:GROUP; use for example 1234:1234"))
    })?;
    let uid = Account::User.parse(user).map_err(in_flag("owner"))?;
    let gid = Account::Group.parse(group).map_err(in_flag("owner"))?;
    Ok(Owner { uid, gid })
}
