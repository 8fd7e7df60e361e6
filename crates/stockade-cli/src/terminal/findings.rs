//! Findings as text: a line for the fact, then its effect and its fix.

use std::io::{IsTerminal, stdout};

use clap::builder::styling::{AnsiColor, Style};
use rustix::termios::tcgetwinsize;
use stockade::doctor::{Finding, Grade};

use super::output::escape_control;
use super::width;

/// Lines are not wrapped to fewer cells.
const LEAST_ROOM: usize = 20;

/// The format of findings. The default is for programs: no colour, no wrapping.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FindingsStyle {
    /// Cells of a line; `None` for no limit.
    width: Option<usize>,
    coloured: bool,
}

impl FindingsStyle {
    pub(crate) fn for_stdout() -> Self {
        if !stdout().is_terminal() {
            return Self::default();
        }
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let coloured = set("NO_COLOR").is_none() && set("TERM").is_some_and(|kind| kind != "dumb");
        // A terminal of unknown size reports 0.
        let width = tcgetwinsize(stdout()).ok().map(|size| size.ws_col.into()).filter(|width| *width > 0);
        Self { width, coloured }
    }

    /// The fact, effect and fix of each finding.
    pub(crate) fn findings(self, findings: &[Finding]) -> String {
        let more = |finding: &Finding| {
            let lines = [("effect", finding.effect), ("fix", finding.fix.as_deref())];
            let lines = lines.map(|(title, line)| {
                let before = format!("{:8} {title:>18} ", "");
                line.map(|line| format!("{before}{}\n", self.wrapped(&escape_control(line), before.len())))
            });
            lines.into_iter().flatten().collect::<String>()
        };
        findings.iter().map(|finding| self.fact("", finding) + &more(finding)).collect()
    }

    /// The fact of a finding, after `before`.
    pub(crate) fn fact(self, before: &str, Finding { check, grade, fact, .. }: &Finding) -> String {
        let style = if self.coloured { colour(*grade) } else { Style::new() };
        let head = format!("{before}{grade:8} {check:18} ");
        let fact = self.wrapped(&escape_control(fact), width::of(&head));
        format!("{before}{style}{grade}{style:#}{}{fact}\n", &head[before.len() + grade.to_string().len()..])
    }

    /// Wraps a text; further lines are indented to its first column.
    fn wrapped(self, text: &str, indent: usize) -> String {
        let room = self.width.and_then(|width| width.checked_sub(indent));
        let Some(room) = room.filter(|room| *room >= LEAST_ROOM) else { return text.to_owned() };
        let mut lines: Vec<String> = Vec::new();
        for word in text.split(' ') {
            match lines.last_mut().filter(|line| width::of(line) + 1 + width::of(word) <= room) {
                Some(line) => line.extend([" ", word]),
                None => lines.push(word.to_owned()),
            }
        }
        lines.join(&format!("\n{:indent$}", ""))
    }
}

fn colour(grade: Grade) -> Style {
    let colour = match grade {
        Grade::Good => AnsiColor::Green,
        Grade::Note => AnsiColor::Cyan,
        Grade::Unknown => AnsiColor::Magenta,
        Grade::Warning => AnsiColor::Yellow,
        Grade::Broken => AnsiColor::Red,
    };
    colour.on_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding() -> Finding {
        Finding {
            check: "cgroups",
            grade: Grade::Note,
            fact: "version 1 with cpu and memory and a_name_that_is_too_long_for_any_line".to_owned(),
            effect: Some("one two three four five"),
            fix: None,
        }
    }

    #[test]
    fn lines_are_wrapped_at_words_and_indented() {
        let indent = " ".repeat(28);
        let wrapped = format!(
            "note     cgroups            version 1 with cpu\n{indent}and memory and\n\
             {indent}a_name_that_is_too_long_for_any_line\n\
             {:8} {:>18} one two three four\n{indent}five\n",
            "", "effect"
        );
        let style = FindingsStyle { width: Some(48), coloured: false };
        assert_eq!(style.findings(&[finding()]), wrapped);
        for width in [None, Some(47), Some(5), Some(200)] {
            let style = FindingsStyle { width, coloured: false };
            assert_eq!(style.findings(&[finding()]).lines().count(), 2, "{width:?}");
        }
    }

    #[test]
    fn colour_does_not_move_the_columns() {
        let plain = FindingsStyle::default().fact("vm-1: ", &finding());
        let coloured = FindingsStyle { width: None, coloured: true }.fact("vm-1: ", &finding());
        assert!(coloured.starts_with("vm-1: \x1b[36mnote\x1b[0m     cgroups"), "{coloured:?}");
        assert_eq!(coloured.replace("\x1b[36m", "").replace("\x1b[0m", ""), plain);
    }
}
