//! Parses the machine's report: `@begin TEST`, the test's output and `@end CODE` for each test, then `@done`.

/// libtest's last line after one passed test. The exit code is also 0 if no test has the name.
const ONE_PASSED: &str = "test result: ok. 1 passed; 0 failed; 0 ignored;";

/// A finished test.
pub(crate) struct Test {
    /// `SUITE::TEST`.
    pub(crate) name: String,
    /// Whether it ran and passed.
    pub(crate) passed: bool,
    /// The test's output.
    pub(crate) output: String,
}

/// The report so far.
#[derive(Default)]
pub(crate) struct Report {
    /// The finished tests.
    pub(crate) tests: Vec<Test>,
    /// Whether the machine finished its list.
    pub(crate) complete: bool,
    current: Option<(String, String)>,
}

impl Report {
    /// Parses a line, and returns the test that it finishes.
    pub(crate) fn read(&mut self, line: &str) -> Option<&Test> {
        if let Some(name) = line.strip_prefix("@begin ") {
            self.current = Some((name.to_owned(), String::new()));
        } else if line == "@done" {
            self.complete = true;
        } else if let Some(code) = line.strip_prefix("@end ") {
            let (name, output) = self.current.take()?;
            let passed = code == "0" && output.lines().any(|line| line.starts_with(ONE_PASSED));
            let output = if code == "0" { output } else { format!("{output}exit code {code}\n") };
            self.tests.push(Test { name, passed, output });
            return self.tests.last();
        } else if let Some((_, output)) = &mut self.current {
            output.push_str(line);
            output.push('\n');
        }
        None
    }

    /// The running test.
    pub(crate) fn current(&self) -> Option<&str> {
        self.current.as_ref().map(|(name, _)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Report {
        let mut report = Report::default();
        for line in lines {
            report.read(line);
        }
        report
    }

    #[test]
    fn a_test_passes_only_with_its_summary_and_exit_code() {
        let summary = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 8 filtered out";
        let none = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out";
        for (summary, end, passed) in
            [(summary, "@end 0", true), (summary, "@end 101", false), (none, "@end 0", false)]
        {
            let report = read(&["@begin s::a", summary, end]);
            assert_eq!(report.tests[0].passed, passed, "{summary} {end}");
        }
    }

    #[test]
    fn the_output_of_a_test_is_kept() {
        let report = read(&["@begin s::a", "one", "two", "@end 101", "@begin s::b", "three", "@end 139"]);
        assert_eq!(report.tests[0].output, "one\ntwo\nexit code 101\n");
        assert_eq!(
            (report.tests[1].name.as_str(), report.tests[1].output.as_str()),
            ("s::b", "three\nexit code 139\n")
        );
    }

    #[test]
    fn a_machine_that_dies_leaves_its_report_incomplete() {
        let report = read(&["@begin s::a", "@end 0", "@begin s::b", "half a"]);
        assert_eq!((report.tests.len(), report.current(), report.complete), (1, Some("s::b"), false));
        assert!(read(&["@begin s::a", "@end 0", "@done"]).complete);
    }
}
