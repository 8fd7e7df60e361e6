//! `stockade top`: what the jails use, as it changes.

mod keys;
mod sample;
mod screen;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::args::StateArgs;
use crate::output::{Failure, print, print_json};
use sample::{Order, Sampler};

/// Arguments of `top`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  stockade top --once --sort memory")]
pub(crate) struct TopArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    interval: f64,
    /// What the list is ordered by.
    #[arg(long, value_name = "COLUMN", value_enum, default_value_t = Order::Cpu)]
    sort: Order,
    /// Only jails whose id holds this text.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Print the table once, and end.
    #[arg(long)]
    once: bool,
    /// Print a list for programs, once.
    #[arg(long)]
    json: bool,
}

/// Not so short that looking is all it does, nor so long that a screen looks dead.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "from 0.1 to 3600 seconds".to_owned())
}

/// How far apart the two looks are from which a single table is made.
const GLANCE: Duration = Duration::from_millis(250);

pub(crate) fn top(args: &TopArgs) -> Result<ExitCode, Failure> {
    let mut sampler = Sampler::new(args.state.store()?);
    if !args.once && !args.json {
        let interval = Duration::from_secs_f64(args.interval);
        return screen::show(sampler, interval, args.sort, args.filter.clone());
    }
    sampler.sample()?;
    std::thread::sleep(GLANCE);
    let mut rows = sampler.sample()?;
    rows.retain(|row| row.id.as_str().contains(&args.filter));
    args.sort.sort(&mut rows);
    if args.json {
        print_json(&rows)?;
    } else {
        print(&table::text(&rows))?;
    }
    Ok(ExitCode::SUCCESS)
}
