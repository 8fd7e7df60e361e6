//! Runs the tests that need cgroup v2 only in a virtual machine.
//!
//! The machine is Debian's kernel under QEMU, and an initramfs with busybox and this workspace's static programs. It
//! has loop devices, no disk, no network and no KVM. The host needs only the programs that `setup` installs.

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

/// The suites: the directory of a package, and one of its test targets.
const SUITES: &[(&str, &str)] = &[
    ("crates/stockade", "cgroup_v2"),
    ("crates/stockade", "adopt_v2"),
    ("crates/stockade", "refused"),
    ("crates/stockade-cli", "delegated"),
    ("crates/jailer", "conformance"),
    // For a kernel without KVM.
    ("crates/stockade-cli", "demo"),
];

/// The programs that the tests run.
const PROGRAMS: &[&str] = &["stockade-probe", "jailer", "stockade"];

/// Builds the suites and runs them in the machine. All their tests must pass.
pub(crate) fn test(summary: &mut Summary) -> Done {
    setup::setup()?;
    let kernel = kernel::fetch()?;
    let suites = image::build_suites(SUITES)?;
    let image = image::make(&suites, PROGRAMS, &kernel::driver()?)?;
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
pub(crate) fn bench(programs: &[PathBuf], arguments: &[&str]) -> Done {
    setup::setup()?;
    let image = image::make_for(programs, arguments)?;
    let mut code = None;
    machine::run(&kernel::fetch()?, &image, "", |line| match line.split_once(' ') {
        Some(("@end", end)) => code = Some(end.to_owned()),
        _ if line.starts_with('@') => (),
        _ => println!("{line}"),
    })?;
    if code.as_deref() == Some("0") { Ok(()) } else { Err(format!("exit code {code:?} in the machine")) }
}

/// Opens a shell on the machine's console.
pub(crate) fn shell() -> Done {
    setup::setup()?;
    let kernel = kernel::fetch()?;
    let image = image::make(&image::build_suites(SUITES)?, PROGRAMS, &kernel::driver()?)?;
    machine::shell(&kernel, &image)
}

/// Prints the results. A test without a result counts as failed.
fn conclude(suites: &[Suite], report: &Report, ran: Done) -> Done {
    for test in report.tests.iter().filter(|test| !test.passed) {
        println!("\n---- {} ----\n{}", test.name, test.output.trim_end());
    }
    let results: BTreeMap<&String, bool> =
        report.tests.iter().map(|test| (&test.name, test.passed)).collect();
    let expected = suites.iter().flat_map(|suite| &suite.tests);
    let missing: Vec<&String> = expected.filter(|name| !results.contains_key(name)).collect();
    for name in &missing {
        println!("test {name} ... no result");
    }
    let passed = results.values().filter(|passed| **passed).count();
    let failed = results.len() - passed + missing.len();
    println!("\n{passed} passed, {failed} failed");
    let during = report.current().map_or(String::new(), |name| format!(" during {name}"));
    ran.map_err(|problem| format!("{problem}{during}"))?;
    if !missing.is_empty() || !report.complete {
        return Err(format!("the machine stopped early{during}: {} tests have no result", missing.len()));
    }
    if failed > 0 { Err(format!("{failed} tests failed in the machine")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: &str = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out";

    /// The conclusion from these lines for a suite of the tests `s::a` and `s::b`.
    fn concluded(lines: &[&str], ran: Done) -> Done {
        let suite = Suite { tests: ["s::a", "s::b"].map(str::to_owned).into(), ..Suite::default() };
        let mut report = Report::default();
        for line in lines {
            report.read(line);
        }
        conclude(&[suite], &report, ran)
    }

    #[test]
    fn a_run_succeeds_if_every_test_passed() {
        let lines = ["@begin s::a", PASSED, "@end 0", "@begin s::b", PASSED, "@end 0", "@done"];
        assert_eq!(concluded(&lines, Ok(())), Ok(()));
    }

    #[test]
    fn a_failed_test_fails_the_run() {
        let lines = ["@begin s::a", PASSED, "@end 0", "@begin s::b", "@end 101", "@done"];
        assert_eq!(concluded(&lines, Ok(())), Err("1 tests failed in the machine".to_owned()));
    }

    #[test]
    fn a_missing_result_fails_the_run() {
        let lines = ["@begin s::a", PASSED, "@end 0", "@done"];
        let problem = "the machine stopped early: 1 tests have no result";
        assert_eq!(concluded(&lines, Ok(())), Err(problem.to_owned()));
    }

    #[test]
    fn the_error_names_the_test_in_which_the_machine_died() {
        let lines = ["@begin s::a", PASSED, "@end 0", "@begin s::b", "half a li"];
        let problem = "the machine stopped early during s::b: 1 tests have no result";
        assert_eq!(concluded(&lines, Ok(())), Err(problem.to_owned()));
        let problem = "too slow during s::b";
        assert_eq!(concluded(&lines, Err("too slow".to_owned())), Err(problem.to_owned()));
    }

    #[test]
    fn results_without_the_final_line_fail_the_run() {
        let lines = ["@begin s::a", PASSED, "@end 0", "@begin s::b", PASSED, "@end 0"];
        assert!(concluded(&lines, Ok(())).is_err());
    }
}
