//! Installs the tests' requirements and runs all tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::command::{Done, built, cache, cargo, output, root, run, run_reading};
use crate::summary::{Reader, Summary};
use crate::{bench, python, setup, vm};

/// The maximum size of the drop-in, in bytes.
const LARGEST_JAILER: u64 = 1_500_000;

/// The suites that live through the lives of jails, as arguments of `cargo test`.
const LIFE: &[&str] = &[
    "--package=stockade",
    "--package=stockade-cli",
    "--test=concurrency",
    "--test=detached",
    "--test=events",
    "--test=exec",
    "--test=inspect",
    "--test=interrupted",
    "--test=jail_files",
    "--test=life",
    "--test=placement",
    "--test=pool",
    "--test=ready",
    "--test=select",
    "--test=shared_netns",
    "--test=teardown",
    "--test=watching",
];

/// What is odd in the second run of these suites: everything under which every command succeeds, except what the
/// tests themselves need.
const ODD_LAUNCHER: &[&str] = &["umask=0", "signals-blocked", "ambient", "real-time"];

/// The drop-in passes on the umask, which the tests compare, and its scheduling, with which no process may join a cgroup
/// of the controller cpu.
const ODD_LAUNCHER_OF_DROP_IN: &[&str] = &["signals-blocked", "ambient"];

pub(crate) fn test(summary: &mut Summary) -> Done {
    setup::setup()?;
    jailer_is_small_and_static()?;
    // For the test of QEMU in a jail.
    vm::fetch_kernel()?;
    // Built first: tests of one crate run the programs of others.
    run(&mut cargo(&["build", "--workspace"]))?;
    // The tests run without and with the template namespace.
    host_setup(&["--remove"])?;
    cargo_test(&["--workspace", "--no-fail-fast"], "", summary)?;
    let odd = from(ODD_LAUNCHER)?;
    cargo_test(&[&["--config", &odd, "--no-fail-fast"], LIFE].concat(), " from an odd launcher", summary)?;
    host_setup(&[])?;
    let odd = from(ODD_LAUNCHER_OF_DROP_IN)?;
    let again = cargo_test(
        &["--config", &odd, "--package", "jailer", "--test", "conformance"],
        " with the template namespace, from an odd launcher",
        summary,
    );
    host_setup(&["--remove"])?;
    again?;
    // A functional test of the benches, not a measurement.
    summary.time("benches --smoke", || bench::bench(&["--smoke"]))?;
    python::test(summary)?;
    vm::test(summary)
}

/// Runs tests of the workspace.
///
/// # Arguments
/// `suffix`: appended to the names of the suites.
fn cargo_test(arguments: &[&str], suffix: &'static str, summary: &mut Summary) -> Done {
    let skipped = cache()?.join("skipped");
    let _ = fs::remove_file(&skipped);
    let mut reader = Reader::new(test_binaries(arguments)?, suffix);
    let mut tests = cargo(&[&["test"], arguments].concat());
    tests.env("STOCKADE_SKIPPED", &skipped);
    let outcome = run_reading(tests, |line| reader.read(line));
    reader.finish(summary);
    summary.skip_listed(&fs::read_to_string(&skipped).unwrap_or_default());
    outcome
}

/// The setting of cargo that starts each test binary from an odd launcher.
fn from(oddities: &[&str]) -> Done<String> {
    let launcher = built("debug/odd-launcher")?.display().to_string();
    let words = [launcher.as_str()].into_iter().chain(oddities.iter().copied()).chain(["--"]);
    let words: Vec<String> = words.map(|word| format!("{word:?}")).collect();
    Ok(format!("target.'cfg(unix)'.runner=[{}]", words.join(", ")))
}

/// Builds test binaries, and returns their packages by their paths in the workspace.
fn test_binaries(arguments: &[&str]) -> Done<BTreeMap<String, String>> {
    let built = output(&mut cargo(
        &[&["test", "--no-run", "--message-format=json-render-diagnostics"], arguments].concat(),
    ))?;
    let artifacts = built.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let binaries = artifacts.filter_map(|artifact| {
        let binary =
            Path::new(artifact["executable"].as_str()?).strip_prefix(root()).ok()?.display().to_string();
        Some((binary, package_of(artifact["package_id"].as_str()?).to_owned()))
    });
    Ok(binaries.collect())
}

/// The name of a package by its id: `path+file:///DIRECTORY#NAME@VERSION`, without the name if it is the directory's.
fn package_of(id: &str) -> &str {
    let (directory, name) = id.rsplit_once('#').unwrap_or((id, ""));
    let directory = directory.rsplit('/').next().unwrap_or(directory);
    name.split_once('@').map_or(directory, |(name, _)| name)
}

/// Creates or removes the template mount namespace of this host.
fn host_setup(flags: &[&str]) -> Done {
    run(std::process::Command::new(built("debug/stockade")?).arg("host-setup").args(flags))
}

/// Checks that the drop-in is small, static and free of unneeded crates: hosts start it most often.
fn jailer_is_small_and_static() -> Done {
    run(&mut cargo(&["build", "--release", "--package", "jailer"]))?;
    let path = built("release/jailer")?;
    let bytes = fs::read(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
    let size = bytes.len() as u64;
    eprintln!("jailer: {size} bytes (at most {LARGEST_JAILER})");
    if size > LARGEST_JAILER {
        return Err(format!("{} is too large", path.display()));
    }
    // The path of a dynamic loader; its name alone is in every program with glibc.
    let unwanted = ["/ld-linux", "clap_builder", "kvm_ioctls", "Invalid ELF dynamic segment"];
    let found =
        unwanted.iter().find(|text| bytes.windows(text.len()).any(|window| window == text.as_bytes()));
    found.map_or(Ok(()), |text| Err(format!("{} contains {text}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::package_of;

    #[test]
    fn a_package_has_its_own_name_or_its_directorys() {
        assert_eq!(package_of("path+file:///a/crates/jailer#0.1.0"), "jailer");
        assert_eq!(package_of("path+file:///a/crates/probe#stockade-probe@0.1.0"), "stockade-probe");
    }
}
