//! Measures jails next to their floors and their peers. `cargo xtask bench` runs it.

mod benches;
mod cgroups;
mod child;
mod crowd;
mod floor;
mod lives;
mod peers;
mod plot;
mod report;
mod series;
mod setup;
mod statistics;
mod tasks;
mod ways;
mod worker;

use std::path::Path;
use std::process::ExitCode;

use benches::Length;
use worker::Workers;

/// A result; the error is a message for a person.
pub(crate) type Done<T = ()> = Result<T, String>;

/// Converts an error into a message.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn text(error: impl ToString) -> String {
    error.to_string()
}

const USAGE: &str = "\
usage: stockade-bench [--quick | --smoke] [--only WORD] [DIRECTORY]

  Measures for five minutes, a minute (--quick) or a few seconds (--smoke), as root, and prints tables.
  Writes the tables, a plot and all samples into DIRECTORY. --only selects the benches with WORD in their title.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["worker", mounts, way] => {
            mounts.parse().map_err(text).and_then(|mounts| worker::work(mounts, way == "template"))
        }
        ["tasks", many] => many.parse().map_err(text).and_then(tasks::run),
        _ => parse(&arguments).and_then(|(length, only, directory)| measure(length, only, directory)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("stockade-bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// The length, the word of `--only`, and the directory.
type Arguments<'a> = (Length, Option<&'a str>, Option<&'a str>);

fn parse<'a>(arguments: &[&'a str]) -> Done<Arguments<'a>> {
    let (mut length, mut only, mut directory) = (Length::Full, None, None);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match *argument {
            "--quick" => length = Length::Quick,
            "--smoke" => length = Length::Smoke,
            "--only" => only = Some(*arguments.next().ok_or("--only needs a word")?),
            path if !path.starts_with('-') && directory.is_none() => directory = Some(path),
            other => return Err(format!("unexpected argument '{other}'\n{USAGE}")),
        }
    }
    Ok((length, only, directory))
}

/// Runs the benches and prints the report.
fn measure(length: Length, only: Option<&str>, directory: Option<&str>) -> Done {
    if !rustix::process::geteuid().is_root() {
        return Err("jails need root; run the benches as root".into());
    }
    let wanted = |title: &str| only.is_none_or(|word| title.contains(word));
    let mut workers = Workers::default();
    let peers = peers::Peers::find(workers.at(benches::HERE)?);
    let controllers = cgroups::EnabledControllers::read()?;
    let directory = directory.map(Path::new);
    let mut missing = peers.missing.clone();
    let mut benches = benches::all(length, &peers, &mut missing);
    benches.retain(|bench| wanted(&bench.title));
    let mut report = report::Report::new(missing);
    for mut bench in benches {
        bench.run(&mut workers)?;
        report.add(bench, directory)?;
    }
    for executable in ["copied", "bound"].into_iter().filter(|_| wanted("crowd")) {
        let crowd = report::Crowd::measure(length, executable, workers.at(benches::HERE)?)?;
        report.add_crowd(crowd, directory)?;
    }
    report.end();
    workers.end()?;
    controllers.restore()
}
