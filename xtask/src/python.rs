//! The Python package: a workspace of its own, with its own linters and tests.

use std::path::PathBuf;
use std::process::Command;

use crate::command::{Done, built, cargo, root, run, run_reading};
use crate::setup;
use crate::summary::{Reader, Summary};

/// Formatting, lints and dependencies of the compiled part.
pub(crate) fn check() -> Done {
    run(inside(&mut cargo(&["fmt", "--check"])))?;
    run(inside(&mut cargo(&["clippy", "--locked", "--all-targets", "--", "-D", "warnings"])))?;
    run(inside(&mut cargo(&["deny", "check", "bans", "licenses", "sources"])))
}

/// Installs the package from this tree, checks its types, and runs its tests.
pub(crate) fn test(summary: &mut Summary) -> Done {
    setup::setup()?;
    // What the tests run: the drop-in, the command, and what is jailed.
    run(&mut cargo(&["build", "--workspace"]))?;
    install()?;
    run(&mut python(&["-m", "mypy"])?)?;
    run(&mut python(&["-m", "mypy.stubtest", "stockade"])?)?;
    let vmm = built("debug/stockade-probe")?;
    let words = ["-m", "pytest", "--quiet", "-p", "no:cacheprovider", "-r", "s"];
    let mut tests = python(&words)?;
    tests.env("STOCKADE_EXAMPLE_VMM", vmm);
    let mut reader = Reader::for_suite("python");
    let outcome = run_reading(tests, |line| reader.read(line));
    reader.finish(summary);
    outcome
}

/// Compares a life through the package with one that runs programs.
pub(crate) fn bench() -> Done {
    setup::setup()?;
    run(&mut cargo(&["build", "--release", "--package", "jailer"]))?;
    install()?;
    run(python(&["benches/context.py"])?.arg(built("release/jailer")?))
}

/// Makes the environment, with the tools at the versions that were tried, and the package in it.
fn install() -> Done {
    if !environment().join("bin/pip").exists() {
        run(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(environment()))?;
    }
    let pip = |words: &[&str]| python(&[&["-m", "pip", "install", "--quiet"], words].concat());
    run(&mut pip(&["--requirement", "requirements-dev.txt"])?)?;
    run(&mut pip(&["--no-build-isolation", "--no-deps", "--force-reinstall", "."])?)
}

fn environment() -> PathBuf {
    root().join("target/python/venv")
}

/// Python in the environment, whose programs are found first, maturin among them.
fn python(words: &[&str]) -> Done<Command> {
    let programs = environment().join("bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(programs.clone()).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(path).map_err(|e| format!("PATH: {e}"))?;
    let mut command = Command::new(programs.join("python"));
    inside(command.args(words).env("PATH", path));
    Ok(command)
}

/// The command in the package's directory, where cargo finds its settings.
fn inside(command: &mut Command) -> &mut Command {
    command.current_dir(root().join("python"))
}
