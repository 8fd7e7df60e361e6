//! Compiles the two programs that the library embeds: the monitor and the executor.

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
    // No library, no start-up code and no relocations; the segments share pages.
    rustc.args(["-Clto=fat", "-Crelocation-model=static", "-Ctarget-feature=+crt-static", "-Cstrip=symbols"]);
    rustc.args([
        "-Clink-args=-nostartfiles -nostdlib -static -no-pie -Wl,--build-id=none -Wl,-z,noseparate-code",
    ]);
    // Each program uses a part of `kernel.rs`.
    rustc.args(["-Adead_code", "-Dwarnings"]);
    rustc.args(["--target", &variable("TARGET"), "-o"]).arg(&target).arg(&source);
    // These flags are for the crate itself and would change the program.
    rustc.env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("RUSTFLAGS");
    let status = rustc.status().unwrap_or_else(|e| panic!("run rustc for the {name}: {e}"));
    assert!(status.success(), "compile the {name}: {status}");
}
