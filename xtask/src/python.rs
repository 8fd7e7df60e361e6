//! The Python package, which has its own workspace, linters and tests.

use std::path::PathBuf;
use std::process::Command;

use crate::command::{Done, built, cargo, root, run, run_reading};
use crate::setup;
use crate::summary::{Reader, Summary};

/// Checks formatting, lints and dependencies of the compiled part.
pub(crate) fn check() -> Done {
    run(inside(&mut cargo(&["fmt", "--check"])))?;
    run(inside(&mut cargo(&["clippy", "--locked", "--all-targets", "--", "-D", "warnings"])))?;
    run(inside(&mut cargo(&["deny", "check", "bans", "licenses", "sources"])))
}

/// Installs the package from this tree, checks its types, and runs its tests.
pub(crate) fn test(summary: &mut Summary) -> Done {
    setup::setup()?;
    // The tests run the drop-in, the command, the probe and the stand-in for Firecracker.
    run(&mut cargo(&["build", "--workspace"]))?;
    install()?;
    run(&mut python(&["-m", "mypy"])?)?;
    run(&mut python(&["-m", "mypy.stubtest", "stockade"])?)?;
    let arguments = ["-m", "pytest", "--quiet", "-p", "no:cacheprovider", "-r", "s"];
    let mut tests = python(&arguments)?;
    tests.env("STOCKADE_EXAMPLE_VMM", built("debug/stockade-probe")?);
    tests.env("STOCKADE_EXAMPLE_FIRECRACKER", built("debug/stand-in")?);
    tests.env("STOCKADE_EXAMPLE_JAILER", built("debug/jailer")?);
    let mut reader = Reader::for_suite("python");
    let outcome = run_reading(tests, |line| reader.read(line));
    reader.finish(summary);
    outcome
}

/// Compares a jail's whole life in the package with a class that runs programs.
pub(crate) fn bench() -> Done {
    setup::setup()?;
    run(&mut cargo(&["build", "--release", "--package", "jailer"]))?;
    install()?;
    run(python(&["benches/context.py"])?.arg(built("release/jailer")?))
}

/// Creates the environment, and installs the tools in tested versions and the package.
fn install() -> Done {
    if !environment().join("bin/pip").exists() {
        run(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(environment()))?;
    }
    let pip = |arguments: &[&str]| python(&[&["-m", "pip", "install", "--quiet"], arguments].concat());
    run(&mut pip(&["--requirement", "requirements-dev.txt"])?)?;
    run(&mut pip(&["--no-build-isolation", "--no-deps", "--force-reinstall", "."])?)
}

fn environment() -> PathBuf {
    root().join("target/python/venv")
}

/// Prepares Python in the environment. The environment's programs, such as maturin, come first on the PATH.
fn python(arguments: &[&str]) -> Done<Command> {
    let programs = environment().join("bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(programs.clone()).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(path).map_err(|e| format!("PATH: {e}"))?;
    let mut command = Command::new(programs.join("python"));
    inside(command.args(arguments).env("PATH", path));
    Ok(command)
}

/// Sets the package's directory, where cargo finds its settings.
fn inside(command: &mut Command) -> &mut Command {
    command.current_dir(root().join("python"))
}
