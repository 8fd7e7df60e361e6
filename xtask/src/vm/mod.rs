//! The tests that need a machine with nothing but cgroup v2, in a virtual machine that is such a one.
//!
//! Debian's kernel under QEMU, an initramfs with busybox and this workspace's static programs, no disk, no
//! network, no KVM: a host needs nothing but the programs that `setup` installs.

mod image;
mod kernel;
pub(crate) mod machine;
mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use crate::command::Done;
use crate::setup;
use crate::summary::Summary;
pub(crate) use image::INIT;
use image::Suite;
pub(crate) use kernel::fetch as fetch_kernel;
use report::Report;

/// The suites that run in the machine: the directory of a package, and one of its test targets.
const SUITES: &[(&str, &str)] = &[
    ("crates/stockade", "cgroup_v2"),
    ("crates/stockade", "adopt_v2"),
    ("crates/stockade", "refused"),
    ("crates/stockade-cli", "delegated"),
    ("crates/jailer", "conformance"),
    // A kernel without KVM.
    ("crates/stockade-cli", "demo"),
];

/// The programs that tests ask for by name.
const PROGRAMS: &[&str] = &["stockade-probe", "jailer", "stockade"];

/// Builds the suites, runs them in the machine, and demands that each of their tests passes.
pub(crate) fn test(summary: &mut Summary) -> Done {
    setup::setup()?;
    let kernel = kernel::fetch()?;
    let suites = image::build_suites(SUITES)?;
    let image = image::make(&suites, PROGRAMS)?;
    let mut report = Report::default();
    let mut last = Instant::now();
    let ran = machine::run(&kernel, &image, "", |line| {
        if let Some(test) = report.read(line) {
            summary.test_in_machine(&test.name, test.passed, &test.output, last.elapsed());
            last = Instant::now();
            println!("test {} ... {}", test.name, if test.passed { "ok" } else { "FAILED" });
        }
    });
    if ran.is_err() || !report.complete {
        println!("\n---- console ----\n{}", machine::end_of_console()?);
    }
    conclude(&suites, &report, ran)
}

/// Runs the first of these programs with these arguments in the machine, and prints its output.
pub(crate) fn bench(programs: &[PathBuf], words: &[&str]) -> Done {
    setup::setup()?;
    let image = image::make_for(programs, words)?;
    let mut code = None;
    machine::run(&kernel::fetch()?, &image, "", |line| match line.split_once(' ') {
        Some(("@end", end)) => code = Some(end.to_owned()),
        _ if line.starts_with('@') => (),
        _ => println!("{line}"),
    })?;
    if code.as_deref() == Some("0") { Ok(()) } else { Err(format!("it ended in the machine with {code:?}")) }
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
    let results: BTreeMap<&String, bool> =
        report.tests.iter().map(|test| (&test.name, test.passed)).collect();
    let expected = suites.iter().flat_map(|suite| &suite.tests);
    let silent: Vec<&String> = expected.filter(|name| !results.contains_key(name)).collect();
    for name in &silent {
        println!("test {name} ... no result");
    }
    let passed = results.values().filter(|passed| **passed).count();
    let failed = results.len() - passed + silent.len();
    println!("\n{passed} passed, {failed} failed");
    let during = report.current().map_or(String::new(), |name| format!(" during {name}"));
    ran.map_err(|problem| format!("{problem}{during}"))?;
    if !silent.is_empty() || !report.complete {
        return Err(format!("the machine stopped early{during}: {} tests have no result", silent.len()));
    }
    if failed > 0 { Err(format!("{failed} tests failed in the machine")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: &str = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out";

    /// The conclusion from these lines about a suite of the tests `s::a` and `s::b`.
    fn concluded(lines: &[&str], ran: Done) -> Done {
        let suite = Suite { tests: ["s::a", "s::b"].map(str::to_owned).into(), ..Suite::default() };
        let mut report = Report::default();
        for line in lines {
            report.read(line);
        }
        conclude(&[suite], &report, ran)
    }

    #[test]
    fn all_is_well_if_every_test_on_the_list_passed() {
        let lines = ["@begin s::a", PASSED, "@end 0", "@begin s::b", PASSED, "@end 0", "@done"];
        assert_eq!(concluded(&lines, Ok(())), Ok(()));
    }

    #[test]
    fn a_test_that_failed_fails_the_run() {
        let lines = ["@begin s::a", PASSED, "@end 0", "@begin s::b", "@end 101", "@done"];
        assert_eq!(concluded(&lines, Ok(())), Err("1 tests failed in the machine".to_owned()));
    }

    #[test]
    fn fewer_results_than_tests_are_a_failure() {
        let lines = ["@begin s::a", PASSED, "@end 0", "@done"];
        let problem = "the machine stopped early: 1 tests have no result";
        assert_eq!(concluded(&lines, Ok(())), Err(problem.to_owned()));
    }

    #[test]
    fn a_machine_that_dies_names_the_test_it_died_in() {
        let lines = ["@begin s::a", PASSED, "@end 0", "@begin s::b", "half a li"];
        let problem = "the machine stopped early during s::b: 1 tests have no result";
        assert_eq!(concluded(&lines, Ok(())), Err(problem.to_owned()));
        let problem = "too slow during s::b";
        assert_eq!(concluded(&lines, Err("too slow".to_owned())), Err(problem.to_owned()));
    }

    #[test]
    fn all_results_without_the_machines_own_end_are_a_failure() {
        let lines = ["@begin s::a", PASSED, "@end 0", "@begin s::b", PASSED, "@end 0"];
        assert!(concluded(&lines, Ok(())).is_err());
    }
}
