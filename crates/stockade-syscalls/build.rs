//! Compiles the programs that the library carries inside: the monitor, and the one that executes visitors.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=programs");
    println!("cargo::rerun-if-changed=build.rs");
    for name in ["monitor", "exec"] {
        compile(name);
    }
}

fn compile(name: &str) {
    let source = Path::new("programs").join(name).with_extension("rs");
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let target = Path::new(&variable("OUT_DIR")).join(name);
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args([
        "--edition=2024",
        "--crate-type=bin",
        "--crate-name",
        name,
        "-Copt-level=s",
        "-Cpanic=abort",
    ]);
    // No library, no start-up code, nothing to relocate; one page-sized segment after the other.
    rustc.args(["-Clto=fat", "-Crelocation-model=static", "-Ctarget-feature=+crt-static", "-Cstrip=symbols"]);
    rustc.args([
        "-Clink-args=-nostartfiles -nostdlib -static -no-pie -Wl,--build-id=none -Wl,-z,noseparate-code",
    ]);
    // Each uses a part of the kernel's interface.
    rustc.args(["-Adead_code", "-Dwarnings"]);
    rustc.args(["--target", &variable("TARGET"), "-o"]).arg(&target).arg(&source);
    // The wrapper that cargo uses for lints has nothing to say here, and its variables would confuse rustc.
    rustc.env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("RUSTFLAGS");
    let status = rustc.status().unwrap_or_else(|e| panic!("run rustc for the {name}: {e}"));
    assert!(status.success(), "compile the {name}: {status}");
}
