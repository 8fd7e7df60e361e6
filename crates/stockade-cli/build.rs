//! Sets the version and commit of the build.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=STOCKADE_COMMIT");
    // It changes with every commit and every switch of branches.
    println!("cargo:rerun-if-changed=../../.git/logs/HEAD");
    // A build from a source archive has no repository, so the variable comes first.
    let commit = std::env::var("STOCKADE_COMMIT").ok().or_else(of_clone).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    let known = if commit.is_empty() { version.to_owned() } else { format!("{version} ({commit})") };
    println!("cargo:rustc-env=STOCKADE_COMMIT={commit}");
    println!("cargo:rustc-env=STOCKADE_VERSION={known}");
}

fn of_clone() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let commit = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| commit.trim().to_owned())
}
