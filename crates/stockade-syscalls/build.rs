//! Compiles the monitor, a program of its own that the library carries inside.

use std::path::Path;
use std::process::Command;

fn main() {
    let source = Path::new("monitor/monitor.rs");
    println!("cargo::rerun-if-changed={}", source.display());
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let target = Path::new(&variable("OUT_DIR")).join("monitor");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args([
        "--edition=2024",
        "--crate-type=bin",
        "--crate-name=monitor",
        "-Copt-level=s",
        "-Cpanic=abort",
        "-Clto=fat",
    ]);
    // No library, no start-up code, nothing to relocate; one page-sized segment after the other.
    rustc.args(["-Crelocation-model=static", "-Ctarget-feature=+crt-static", "-Cstrip=symbols"]);
    rustc.args([
        "-Clink-args=-nostartfiles -nostdlib -static -no-pie -Wl,--build-id=none -Wl,-z,noseparate-code",
    ]);
    rustc.args(["--target", &variable("TARGET"), "-o"]).arg(&target).arg(source);
    // The wrapper that cargo uses for lints has nothing to say here, and its variables would confuse rustc.
    rustc.env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("RUSTFLAGS");
    let status = rustc.status().unwrap_or_else(|e| panic!("run rustc for the monitor: {e}"));
    assert!(status.success(), "compile the monitor: {status}");
}
