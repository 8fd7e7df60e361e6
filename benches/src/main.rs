//! How fast jails are, next to their floors and their peers. `cargo xtask bench` runs it.

mod benches;
mod cgroups;
mod child;
mod crowd;
mod floor;
mod ground;
mod lives;
mod peers;
mod plot;
mod report;
mod series;
mod statistics;
mod tasks;
mod ways;
mod worker;

use std::path::Path;
use std::process::ExitCode;

use benches::Length;
use worker::Workers;

/// The outcome of something; an error is one line for a person.
pub(crate) type Done<T = ()> = Result<T, String>;

/// An error as one line.
#[expect(clippy::needless_pass_by_value, reason = "to be named where an error is mapped")]
pub(crate) fn text(error: impl ToString) -> String {
    error.to_string()
}

const USAGE: &str = "\
usage: stockade-bench [--quick | --smoke] [--only WORD] [DIRECTORY]

  Measures for five minutes, a minute or a few seconds, as root, and prints tables; writes them with a
  plot and all figures into DIRECTORY. With --only, the benches that have WORD in their title.
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["worker", mounts, way] => {
            mounts.parse().map_err(text).and_then(|mounts| worker::work(mounts, way == "skeleton"))
        }
        ["tasks", many] => many.parse().map_err(text).and_then(tasks::be),
        _ => arguments(&words).and_then(|(length, only, directory)| measure(length, only, directory)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("stockade-bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

type Arguments<'w> = (Length, Option<&'w str>, Option<&'w str>);

fn arguments<'w>(words: &[&'w str]) -> Done<Arguments<'w>> {
    let (mut length, mut only, mut directory) = (Length::Full, None, None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--quick" => length = Length::Quick,
            "--smoke" => length = Length::Smoke,
            "--only" => only = Some(*words.next().ok_or("--only needs a word")?),
            path if !path.starts_with('-') && directory.is_none() => directory = Some(path),
            other => return Err(format!("{other} is not understood\n{USAGE}")),
        }
    }
    Ok((length, only, directory))
}

/// Measures everything, and tells.
fn measure(length: Length, only: Option<&str>, directory: Option<&str>) -> Done {
    if !rustix::process::geteuid().is_root() {
        return Err("jails take root: run the benches as root".into());
    }
    let wanted = |title: &str| only.is_none_or(|word| title.contains(word));
    let mut workers = Workers::default();
    let peers = peers::Peers::find(workers.at(benches::HERE)?);
    let handed_down = cgroups::HandedDown::look()?;
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
    handed_down.restore()
}
