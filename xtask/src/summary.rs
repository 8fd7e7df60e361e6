//! The summary of a test run: the time of each suite, and the skipped tests with their reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::command::Done;

/// A suite of tests: a test binary, the documentation of a crate, or another testing program.
#[derive(Debug)]
struct Suite {
    name: String,
    counts: Counts,
    time: Duration,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

/// Results of all suites, in the order in which they ran.
#[derive(Default)]
pub(crate) struct Summary {
    suites: Vec<Suite>,
    /// Skipped tests by the machine and the reason.
    skipped: BTreeMap<(&'static str, String), BTreeSet<String>>,
    /// Tests that passed in the virtual machine.
    passed_in_machine: BTreeSet<String>,
}

// The machines in the summary.
pub(crate) const HERE: &str = "here";
pub(crate) const IN_MACHINE: &str = "in the virtual machine";

/// Runs tests, then prints the time of each suite and the skipped tests, also after a failure.
pub(crate) fn summarised(tests: impl FnOnce(&mut Summary) -> Done) -> Done {
    let mut summary = Summary::default();
    let outcome = tests(&mut summary);
    eprint!("\n{}", summary.text());
    outcome
}

impl Summary {
    /// Runs a program as a suite.
    pub(crate) fn time<T>(&mut self, name: &str, program: impl FnOnce() -> Done<T>) -> Done<T> {
        let mut reader = Reader::for_suite(name);
        let outcome = program();
        reader.count(outcome.is_ok());
        reader.finish(self);
        outcome
    }

    pub(crate) fn skip(&mut self, machine: &'static str, test: &str, reason: &str) {
        self.skipped.entry((machine, reason.to_owned())).or_default().insert(test.to_owned());
    }

    /// Records the skipped tests of a list with the lines `TEST (needs SOMETHING)`.
    pub(crate) fn skip_listed(&mut self, list: &str) {
        for line in list.lines() {
            if let Some((test, reason)) = line.strip_suffix(')').and_then(|line| line.split_once(" (needs "))
            {
                self.skip(HERE, test, &format!("needs {reason}"));
            }
        }
    }

    /// Records a test of the virtual machine, `SUITE::TEST`, with its output.
    pub(crate) fn test_in_machine(&mut self, test: &str, passed: bool, output: &str, time: Duration) {
        let (suite, _) = test.split_once("::").unwrap_or((test, ""));
        let name = format!("virtual machine: {suite}");
        if self.suites.last().is_none_or(|last| last.name != name) {
            self.suites.push(Suite { name, counts: Counts::default(), time: Duration::ZERO });
        }
        let reason = output.lines().find_map(skipped);
        if let Some(last) = self.suites.last_mut() {
            last.counts.passed += usize::from(passed);
            last.counts.failed += usize::from(!passed);
            last.time += time;
        }
        match reason {
            Some((_, reason)) => self.skip(IN_MACHINE, test, &reason),
            None if passed => drop(self.passed_in_machine.insert(test.to_owned())),
            None => (),
        }
    }

    /// The table of suites, then the skipped tests.
    pub(crate) fn text(&self) -> String {
        let width = self.suites.iter().map(|suite| suite.name.chars().count()).max().unwrap_or(0).max(5);
        let mut text = format!("{:width$}  passed  failed  ignored      time\n", "suite");
        for Suite { name, counts: Counts { passed, failed, skipped }, time } in &self.suites {
            let time = time.as_secs_f64();
            let _ = writeln!(text, "{name:width$}  {passed:6}  {failed:6}  {skipped:7}  {time:6.1} s");
        }
        let total: Duration = self.suites.iter().map(|suite| suite.time).sum();
        let _ = writeln!(text, "{:width$}  {:33.1} s", "all", total.as_secs_f64());
        if self.skipped.is_empty() {
            return text + "\nnothing was skipped\n";
        }
        text.push_str("\nskipped:\n");
        for ((machine, reason), tests) in &self.skipped {
            let ran = |test: &&String| *machine == HERE && self.passed_in_machine.contains(*test);
            let ran = tests.iter().filter(ran).count();
            let elsewhere =
                if ran == 0 { String::new() } else { format!(", {ran} of them passed {IN_MACHINE}") };
            let _ = writeln!(text, "  {machine}: {reason} ({} tests{elsewhere})", tests.len());
            for test in tests {
                let _ = writeln!(text, "    {test}");
            }
        }
        text
    }
}

/// Parses the output of `cargo test` and pytest.
#[derive(Default)]
pub(crate) struct Reader {
    /// The name, the start and the counts of the current suite.
    current: Option<(String, Instant, Counts)>,
    suites: Vec<Suite>,
    ignored: Vec<(String, String)>,
    /// Packages by the paths of their test binaries.
    packages: BTreeMap<String, String>,
    /// Appended to the names of suites.
    suffix: &'static str,
}

impl Reader {
    /// # Arguments
    /// * `packages`: the packages by the paths of their test binaries, relative to the workspace.
    /// * `suffix`: appended to the names of suites.
    pub(crate) fn new(packages: BTreeMap<String, String>, suffix: &'static str) -> Self {
        Self { packages, suffix, ..Self::default() }
    }

    /// Creates a reader for a program that is one suite.
    pub(crate) fn for_suite(name: &str) -> Self {
        let mut reader = Self::default();
        reader.begin(name.to_owned());
        reader
    }

    /// Parses a line.
    pub(crate) fn read(&mut self, line: &str) {
        let line = line.trim();
        if let Some((source, binary)) = line.strip_prefix("Running ").and_then(|rest| rest.split_once(" (")) {
            let binary = binary.trim_end_matches(')');
            let package = self.packages.get(binary).map_or_else(|| crate_of(binary), String::as_str);
            let name = format!("{package} {}{}", source.trim_start_matches("unittests "), self.suffix);
            self.begin(name);
        } else if let Some(name) = line.strip_prefix("Doc-tests ") {
            self.begin(format!("{name} documentation"));
        } else if let Some(result) = line.strip_prefix("test result: ") {
            let count = |label| number_before(result, label);
            self.add(Counts {
                passed: count(" passed"),
                failed: count(" failed"),
                skipped: count(" ignored"),
            });
        } else if let Some((test, reason)) =
            line.strip_prefix("test ").and_then(|test| test.split_once(" ... ignored"))
        {
            let suite = self.current.as_ref().map_or("", |(name, ..)| name.as_str());
            let reason = reason.trim_start_matches(", ");
            let reason = if reason.is_empty() { "ignored".to_owned() } else { format!("ignored: {reason}") };
            self.ignored.push((format!("{suite}: {test}"), reason));
        } else if let Some((position, reason)) =
            line.strip_prefix("SKIPPED [").and_then(|rest| rest.split_once(": "))
        {
            let (count, position) = position.split_once("] ").unwrap_or(("1", position));
            self.ignored.push((format!("{count} of python, {position}"), reason.to_owned()));
        } else if line.contains(" passed") && line.contains(" in ") && !line.contains("; ") {
            let count = |label| number_before(line, label);
            self.add(Counts {
                passed: count(" passed"),
                failed: count(" failed"),
                skipped: count(" skipped"),
            });
        }
    }

    fn begin(&mut self, name: String) {
        self.end();
        self.current = Some((name, Instant::now(), Counts::default()));
    }

    /// Counts the suite as one test.
    fn count(&mut self, passed: bool) {
        self.add(Counts { passed: usize::from(passed), failed: usize::from(!passed), skipped: 0 });
    }

    fn add(&mut self, more: Counts) {
        if let Some((_, _, counts)) = &mut self.current {
            counts.passed += more.passed;
            counts.failed += more.failed;
            counts.skipped += more.skipped;
        }
    }

    fn end(&mut self) {
        self.suites.extend(self.current.take().map(|(name, started, counts)| Suite {
            name,
            counts,
            time: started.elapsed(),
        }));
    }

    /// Adds the parsed results to a summary.
    pub(crate) fn finish(mut self, summary: &mut Summary) {
        self.end();
        // A binary without tests is no suite.
        summary.suites.extend(self.suites.into_iter().filter(|suite| suite.counts != Counts::default()));
        for (test, reason) in self.ignored {
            summary.skip(HERE, &test, &reason);
        }
    }
}

/// The crate of a test binary, `target/…/deps/CRATE-HASH`.
fn crate_of(binary: &str) -> &str {
    let file = binary.rsplit('/').next().unwrap_or(binary);
    file.rsplit_once('-').map_or(file, |(name, _)| name)
}

/// The number before a label; 0 if there is none.
fn number_before(line: &str, label: &str) -> usize {
    let before = line.split(label).next().filter(|before| before.len() < line.len());
    let digits = before.and_then(|before| before.rsplit(|c: char| !c.is_ascii_digit()).next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// The skipped test in a line, and its need.
fn skipped(line: &str) -> Option<(String, String)> {
    let (test, need) = line.split_once("skipped: ")?.1.split_once(" needs ")?;
    Some((test.to_owned(), format!("needs {need}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Summary {
        let packages = [("target/deps/life-0a".to_owned(), "stockade".to_owned())];
        let mut reader = Reader::new(packages.into(), "");
        for line in lines {
            reader.read(line);
        }
        let mut summary = Summary::default();
        reader.finish(&mut summary);
        summary
    }

    #[test]
    fn suites_have_their_package_and_their_counts() {
        let summary = read(&[
            "     Running unittests src/lib.rs (target/deps/a_b-1f)",
            "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "     Running tests/life.rs (target/deps/life-0a)",
            "test owner ... ignored, another test runs it",
            "test a_life ... ok",
            "test result: ok. 21 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.30s",
            "   Doc-tests stockade",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.3s",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.3s",
        ]);
        let names: Vec<_> = summary.suites.iter().map(|suite| (suite.name.as_str(), suite.counts)).collect();
        assert_eq!(
            names,
            [
                ("stockade tests/life.rs", Counts { passed: 21, failed: 0, skipped: 1 }),
                ("stockade documentation", Counts { passed: 4, failed: 2, skipped: 0 }),
            ]
        );
        let text = summary.text();
        assert!(
            text.contains(
                "here: ignored: another test runs it (1 tests)\n    stockade tests/life.rs: owner\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn tests_that_pytest_skips_have_their_reason() {
        let mut reader = Reader::for_suite("python");
        reader.read("SKIPPED [2] tests/conftest.py:160: needs root");
        reader.read("115 passed, 2 skipped in 12.34s");
        let mut summary = Summary::default();
        reader.finish(&mut summary);
        assert_eq!(summary.suites[0].counts, Counts { passed: 115, failed: 0, skipped: 2 });
        assert!(
            summary.text().contains("here: needs root (1 tests)\n    2 of python, tests/conftest.py:160\n")
        );
    }

    #[test]
    fn tests_that_ran_in_the_virtual_machine_are_counted() {
        let mut summary = Summary::default();
        summary.skip_listed("v2::a (needs v2)\nv2::b (needs v2)\n");
        let second = Duration::from_secs(1);
        summary.test_in_machine("v2::a", true, "", second);
        summary.test_in_machine("v2::b", false, "", second);
        summary.test_in_machine("conformance::c", true, "skipped: c needs strace\n", second);
        let text = summary.text();
        assert!(
            text.contains(
                "  here: needs v2 (2 tests, 1 of them passed in the virtual machine)\n    v2::a\n    v2::b\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("  in the virtual machine: needs strace (1 tests)\n    conformance::c\n"),
            "{text}"
        );
        assert_eq!(summary.suites[0].counts, Counts { passed: 1, failed: 1, skipped: 0 });
        assert_eq!(summary.suites[0].time, second * 2);
    }

    #[test]
    fn a_failed_program_is_a_suite_too() {
        let mut summary = Summary::default();
        let failed: Result<(), String> = summary.time("smoke", || Err("cause".to_owned()));
        assert_eq!(failed, Err("cause".to_owned()));
        assert_eq!(summary.suites[0].counts, Counts { passed: 0, failed: 1, skipped: 0 });
        assert!(summary.text().ends_with("nothing was skipped\n"));
    }
}
