//! The benches, built as they are measured: for release.

use crate::command::{Done, built, cache, cargo, run};

/// Where the tables, the plot and all figures go, below what tasks keep.
const FIGURES: &str = "bench";

/// The benches that run in a machine with cgroup v2 alone.
const IN_THE_MACHINE: &[&str] = &["--only", "version 2"];

/// Runs the benches with these flags of theirs (`--quick`, `--smoke`, `--only WORD`); with `--vm` alone, that of
/// cgroup v2 in a machine that has no other.
pub(crate) fn bench(flags: &[&str]) -> Done {
    // One after the other: built together, the drop-in would include code that only the others need.
    run(&mut cargo(&["build", "--release", "--package", "jailer"]))?;
    run(&mut cargo(&["build", "--release", "--package", "stockade-bench"]))?;
    if flags == ["--vm"] {
        let programs = ["stockade-bench", "bench-vmm", "jailer"];
        let programs: Vec<_> =
            programs.iter().map(|name| built(&format!("release/{name}"))).collect::<Done<_>>()?;
        return crate::vm::bench(&programs, IN_THE_MACHINE);
    }
    let figures = cache()?.join(FIGURES);
    let mut bench = std::process::Command::new(built("release/stockade-bench")?);
    run(bench.args(flags).arg(&figures))?;
    eprintln!("tables, plot and figures: {}", figures.display());
    Ok(())
}
