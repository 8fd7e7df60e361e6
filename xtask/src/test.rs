//! Every test, after what they need is installed.

use std::fs;

use crate::command::{Done, built, cache, cargo, run};
use crate::{bench, python, setup, vm};

/// How large the drop-in may be, in bytes.
const LARGEST_JAILER: u64 = 1_500_000;

pub(crate) fn test() -> Done {
    setup::setup()?;
    jailer_is_small_and_static()?;
    let skipped = cache()?.join("skipped");
    let _ = fs::remove_file(&skipped);
    // For the test of QEMU in a jail.
    vm::fetch_kernel()?;
    // Everything is built first: tests of one crate run the programs of others.
    run(&mut cargo(&["build", "--workspace"]))?;
    // Whether jails start by it decides which of two ways the tests go; they go both.
    host_setup(&["--remove"])?;
    run(cargo(&["test", "--workspace", "--no-fail-fast"]).env("STOCKADE_SKIPPED", &skipped))?;
    host_setup(&[])?;
    let again = run(&mut cargo(&["test", "--package", "jailer", "--test", "conformance"]));
    host_setup(&["--remove"])?;
    again?;
    // That it works, not how fast it is.
    bench::bench(&["--smoke"])?;
    python::test()?;
    if let Ok(names) = fs::read_to_string(&skipped) {
        eprintln!("skipped:\n{names}");
    }
    vm::test()
}

/// Makes or removes the skeleton mount namespace of this host.
fn host_setup(flags: &[&str]) -> Done {
    run(std::process::Command::new(built("debug/stockade")?).arg("host-setup").args(flags))
}

/// The drop-in is what a host starts most often: it links nothing that it does not need.
fn jailer_is_small_and_static() -> Done {
    run(&mut cargo(&["build", "--release", "--package", "jailer"]))?;
    let path = built("release/jailer")?;
    let bytes = fs::read(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
    let size = bytes.len() as u64;
    eprintln!("jailer: {size} bytes (at most {LARGEST_JAILER})");
    if size > LARGEST_JAILER {
        return Err(format!("{} is too large", path.display()));
    }
    // The path of a loader; its bare name is in every program that links glibc.
    let unwanted = ["/ld-linux", "clap_builder", "kvm_ioctls", "Invalid ELF dynamic segment"];
    let found =
        unwanted.iter().find(|word| bytes.windows(word.len()).any(|window| window == word.as_bytes()));
    found.map_or(Ok(()), |word| Err(format!("{} links {word}", path.display())))
}
