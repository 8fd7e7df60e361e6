//! Installs the programs that the tests need and a fresh Debian lacks.

use std::fs;

use crate::command::{Done, cargo, command, find_installed, is_installed, run};

/// Programs with their Debian packages.
const PROGRAMS: &[(&str, &str)] = &[
    ("gcc", "gcc"),
    ("ip", "iproute2"),
    ("strace", "strace"),
    ("strip", "binutils"),
    // Debian's Python, not another one on the PATH.
    ("/usr/bin/python3", "python3"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("cpio", "cpio"),
    ("busybox", "busybox-static"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("mkfs.ext4", "e2fsprogs"),
    // For building the Debian package, checking its units and testing it in a separate Debian.
    ("dpkg-deb", "dpkg"),
    ("systemd-analyze", "systemd"),
    ("debootstrap", "debootstrap"),
];

/// The tested version.
const CARGO_DENY: &str = "0.20.2";
/// The tested version.
const MDBOOK: &str = "0.5.4";

/// Installs the Debian packages whose programs are missing.
pub(crate) fn setup() -> Done {
    let missing = PROGRAMS.iter().filter(|(program, package)| !is_present(program, package));
    let mut packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    packages.extend((!has_venv()).then_some("python3-venv"));
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

/// Whether Debian's Python can create environments, which needs the package python3-venv.
fn has_venv() -> bool {
    let mut python = std::process::Command::new("/usr/bin/python3");
    python.args(["-c", "import ensurepip"]).stderr(std::process::Stdio::null());
    python.status().is_ok_and(|status| status.success())
}

/// Whether a program is installed. If its package is a static one, the program must not need a dynamic loader.
fn is_present(program: &str, package: &str) -> bool {
    let Some(path) = find_installed(program) else { return false };
    // A dynamic program contains the loader's path; a static one at most its name.
    let loader = b"/ld-linux";
    let needs_loader = |bytes: Vec<u8>| bytes.windows(loader.len()).any(|window| window == loader);
    !package.ends_with("-static") || fs::read(path).is_ok_and(|bytes| !needs_loader(bytes))
}

fn apt(arguments: &[&str]) -> std::process::Command {
    command("apt-get", arguments)
}

/// Installs tmux, with which the pictures of terminals are drawn.
pub(crate) fn tmux() -> Done {
    if is_installed("tmux") {
        return Ok(());
    }
    run(&mut apt(&["install", "--yes", "--no-install-recommends", "tmux"]))
}

/// Builds cargo-deny, unless it is installed.
pub(crate) fn cargo_deny() -> Done {
    program_of("cargo-deny", CARGO_DENY, &[])
}

/// Builds mdBook, unless it is installed.
pub(crate) fn mdbook() -> Done {
    program_of("mdbook", MDBOOK, &["--no-default-features", "--features", "search"])
}

fn program_of(package: &str, version: &str, features: &[&str]) -> Done {
    if is_installed(package) {
        return Ok(());
    }
    run(cargo(&["install", package, "--locked", "--version", version]).args(features))
}
