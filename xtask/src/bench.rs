//! Builds the benches for release and runs them.

use crate::command::{Done, built, cache, cargo, run};

/// The directory of the tables, the plot and all samples, in the tasks' cache.
const FIGURES: &str = "bench";

/// The flags of the bench in the virtual machine, which has cgroup v2 only.
const IN_THE_MACHINE: &[&str] = &["--only", "cgroup v2"];

/// Runs the benches with their flags (`--quick`, `--smoke`, `--only WORD`). With `--vm` alone, runs the bench of
/// cgroup v2 in the virtual machine.
pub(crate) fn bench(flags: &[&str]) -> Done {
    // Separate builds: in one build the drop-in would contain features that only the others need.
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
    eprintln!("tables, plot and samples: {}", figures.display());
    Ok(())
}
