//! What the tests need and a fresh Debian lacks.

use crate::command::{Done, cargo, command, is_installed, run};

/// A program and the Debian package it comes in.
const PROGRAMS: &[(&str, &str)] = &[("gcc", "gcc"), ("ip", "iproute2"), ("strace", "strace")];

/// The version that checks were written for.
const CARGO_DENY: &str = "0.20.2";

/// Installs the Debian packages whose programs are missing.
pub(crate) fn setup() -> Done {
    let missing = PROGRAMS.iter().filter(|(program, _)| !is_installed(program));
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    let install = [&["install", "--yes", "--no-install-recommends"], &packages[..]].concat();
    run(apt(&["update", "--quiet"]).env("DEBIAN_FRONTEND", "noninteractive"))
        .and_then(|()| run(apt(&install).env("DEBIAN_FRONTEND", "noninteractive")))
        .map_err(|e| {
            format!(
                "{e}: the tests need {}; run this as root on Debian, or install them",
                packages.join(", ")
            )
        })
}

fn apt(arguments: &[&str]) -> std::process::Command {
    command("apt-get", arguments)
}

/// Builds the dependency checker, unless it is there.
pub(crate) fn cargo_deny() -> Done {
    if is_installed("cargo-deny") {
        return Ok(());
    }
    run(&mut cargo(&["install", "cargo-deny", "--locked", "--version", CARGO_DENY]))
}
