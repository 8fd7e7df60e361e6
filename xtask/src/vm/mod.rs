//! The tests that need a machine with nothing but cgroup v2, in a virtual machine that is such a one.
//!
//! Debian's kernel under QEMU, an initramfs with busybox and this workspace's static programs, no disk, no
//! network, no KVM: a host needs nothing but the programs that `setup` installs.

mod image;
mod kernel;
mod machine;
mod report;

use std::collections::BTreeSet;

use crate::command::Done;
use crate::setup;
use image::Suite;
use report::Report;

/// What runs in the machine: the folder of a package, and one of its test targets.
const SUITES: &[(&str, &str)] = &[("crates/stockade", "cgroup_v2")];

/// The programs that tests ask for by name.
const PROGRAMS: &[&str] = &["stockade-probe", "jailer", "stockade"];

/// Builds the suites, runs them in the machine, and demands that each of their tests passes.
pub(crate) fn test() -> Done {
    setup::setup()?;
    let kernel = kernel::fetch()?;
    let suites = image::build_suites(SUITES)?;
    let image = image::make(&suites, PROGRAMS)?;
    let mut report = Report::default();
    let ran = machine::run(&kernel, &image, |line| {
        if let Some(test) = report.read(line) {
            println!("test {} ... {}", test.name, if test.passed { "ok" } else { "FAILED" });
        }
    });
    conclude(&suites, &report, ran)
}

/// The same machine with a shell on its console.
pub(crate) fn shell() -> Done {
    setup::setup()?;
    let image = image::make(&image::build_suites(SUITES)?, PROGRAMS)?;
    machine::shell(&kernel::fetch()?, &image)
}

/// A test without a result has failed, whatever became of the machine.
fn conclude(suites: &[Suite], report: &Report, ran: Done) -> Done {
    for test in report.tests.iter().filter(|test| !test.passed) {
        println!("\n---- {} ----\n{}", test.name, test.output.trim_end());
    }
    let reported: BTreeSet<&str> = report.tests.iter().map(|test| test.name.as_str()).collect();
    let expected: Vec<&str> = suites.iter().flat_map(|suite| &suite.tests).map(String::as_str).collect();
    let silent: Vec<&str> = expected.iter().copied().filter(|name| !reported.contains(name)).collect();
    let passed = report.tests.iter().filter(|test| test.passed).count();
    let failed = report.tests.len() - passed + silent.len();
    println!("\n{passed} passed, {failed} failed");
    let during = report.current().map_or(String::new(), |name| format!(" during {name}"));
    ran.map_err(|problem| format!("{problem}{during}; {} tests have no result", silent.len()))?;
    if !silent.is_empty() {
        return Err(format!("the machine reported no result of {}", silent.join(", ")));
    }
    if !report.complete {
        return Err("the machine stopped before it had said that it was done".to_owned());
    }
    if failed > 0 { Err(format!("{failed} tests failed in the machine")) } else { Ok(()) }
}
