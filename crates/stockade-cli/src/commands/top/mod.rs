//! `stockade top`: shows the resource use of the jails, live.

mod keys;
mod sample;
mod screen;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use stockade::Listing;
use stockade::spec::JailId;

use crate::flags::duration::duration;
use crate::flags::lookup::find;
use crate::flags::state::StateArgs;
use crate::select::FilterArgs;
use crate::terminal::output::{Failure, print, print_json, require_root_to_look};
use sample::{Order, Sampler};

/// Arguments of `top`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  stockade top vm-1 vm-2
  stockade top --once --sort memory --filter vmm=firecracker")]
pub(crate) struct TopArgs {
    /// IDs of the jails to show, or unique prefixes of them (default: all jails).
    #[arg(value_name = "ID", conflicts_with = "filter")]
    ids: Vec<JailId>,
    #[command(flatten)]
    state: StateArgs,
    /// Time between updates.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = interval)]
    interval: Duration,
    /// Column to sort by.
    #[arg(long, value_name = "COLUMN", value_enum, default_value_t = Order::Cpu)]
    sort: Order,
    #[command(flatten)]
    filter: FilterArgs,
    /// Print the table once, and exit.
    #[arg(long)]
    once: bool,
    /// Print a JSON list once, and exit.
    #[arg(long)]
    json: bool,
}

/// Parses an interval: long enough to leave time for other work, short enough for a live screen.
fn interval(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(100)..=Duration::from_hours(1);
    let time = duration(text)?;
    if range.contains(&time) { Ok(time) } else { Err("out of range; use 0.1 to 3600 seconds".to_owned()) }
}

/// The time between the two samples of a single table.
const SAMPLE_TIME: Duration = Duration::from_millis(250);

pub(crate) fn top(args: &TopArgs) -> Result<ExitCode, Failure> {
    require_root_to_look("top")?;
    let store = args.state.store()?;
    let named = args.ids.iter().map(|id| find(&store, id)).collect::<Result<Vec<_>, _>>()?;
    let wanted = |jail: &Listing| (named.is_empty() || named.contains(&jail.id)) && args.filter.fit(jail);
    let mut sampler = Sampler::new(store, &wanted);
    if !args.once && !args.json {
        return screen::show(sampler, args.interval, args.sort);
    }
    sampler.sample()?;
    std::thread::sleep(SAMPLE_TIME);
    let mut rows = sampler.sample()?;
    args.sort.sort(&mut rows);
    if args.json {
        print_json(&rows)?;
    } else {
        print(&table::text(&rows))?;
    }
    Ok(ExitCode::SUCCESS)
}
