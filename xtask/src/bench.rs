//! The benches, built as they are measured: for release.

use crate::command::{Done, built, cache, cargo, run};

/// Where the tables, the plot and all figures go, below what tasks keep.
const FIGURES: &str = "bench";

/// Runs the benches with these flags of theirs (`--quick`, `--smoke`, `--only WORD`).
pub(crate) fn bench(flags: &[&str]) -> Done {
    // One after the other: built together the drop-in would link what only the others need.
    run(&mut cargo(&["build", "--release", "--package", "jailer"]))?;
    run(&mut cargo(&["build", "--release", "--package", "stockade-bench"]))?;
    let figures = cache()?.join(FIGURES);
    let mut bench = std::process::Command::new(built("release/stockade-bench")?);
    run(bench.args(flags).arg(&figures))?;
    eprintln!("tables, plot and figures: {}", figures.display());
    Ok(())
}
