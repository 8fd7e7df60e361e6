//! `stockade place`: files, directories and devices into a jail that is there.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use stockade::spec::{JailId, Owner};
use stockade::{How, Jail, Placed, Placement};
use stockade_syscalls::signals::SignalFd;

use crate::flags::lookup::{open, stopped_jail};
use crate::flags::placement::{check_distinct, parse, place_one};
use crate::flags::state::StateArgs;
use crate::terminal::output::{Failure, ignore_closed_stdout, print, print_json, require_root};
use crate::terminal::signals::stop_signals;

/// Arguments of `place`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  stockade place vm-1 vmlinux rootfs.img=drives/root.img --read-only")]
pub(crate) struct PlaceArgs {
    /// Name of the jail.
    pub(crate) id: JailId,
    /// What to place, under which name, and how: ro, bind, copy, link, node or reflink.
    #[arg(required = true, value_name = "SRC[=NAME][:OPTION]...")]
    files: Vec<OsString>,
    /// How to place what says nothing else.
    #[arg(long, value_name = "HOW", default_value = "auto",
          value_parser = ["auto", "bind", "copy", "link", "node", "reflink"])]
    how: String,
    /// For the jail to read only.
    #[arg(long)]
    read_only: bool,
    /// Who owns it in the jail; the jail's own user and group unless given.
    #[arg(long, value_name = "UID:GID")]
    owner: Option<String>,
    #[command(flatten)]
    pub(crate) state: StateArgs,
    /// Print for programs where each is, and how it got there.
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
            parse(argument, &base).map_err(|wrong| Failure::new(format!("{}: {wrong}", argument.display())))
        });
        let placements = parsed.collect::<Result<Vec<_>, _>>()?;
        check_distinct(&placements, None).map(|()| placements)
    }
}

/// What a program is told of a placement.
#[derive(Serialize)]
struct Row<'a> {
    source: &'a Path,
    #[serde(flatten)]
    placed: Placed,
}

pub(crate) fn place(args: &PlaceArgs) -> Result<ExitCode, Failure> {
    require_root("place")?;
    let placements = args.placements()?;
    // From here on a signal waits until what has been copied of a file can be taken away.
    let signals = stop_signals()?;
    let mut jail = open(&args.state.store()?, &args.id)?;
    let mut rows = Vec::new();
    for placement in &placements {
        let source = placement.source();
        match place_into(&mut jail, placement, &signals) {
            Ok(placed) if args.json => rows.push(Row { source, placed }),
            Ok(placed) => ignore_closed_stdout(print(&format!("{placed}\n")))?,
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
        Jail::Created(jail) => {
            place_one(placement, None, signals, |what, progress| jail.place_with_progress(what, progress))
        }
        Jail::Running(jail) => {
            place_one(placement, None, signals, |what, progress| jail.place_with_progress(what, progress))
        }
        Jail::Exited(dead) | Jail::Abandoned(dead) => Err(stopped_jail(dead)),
    }
}

fn owner(text: &str) -> Result<Owner, Failure> {
    let parsed = text.split_once(':').and_then(|(uid, gid)| {
        Some(Owner { uid: Owner::parse_number(uid)?, gid: Owner::parse_number(gid)? })
    });
    parsed.ok_or_else(|| Failure::new(format!("--owner: {text:?} is not UID:GID, such as 1234:1234")))
}
