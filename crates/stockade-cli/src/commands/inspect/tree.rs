//! A drawing of a jail as a tree.

use std::fmt::Write;

use stockade::inspect::{Inspection, Member};

use crate::terminal::output::escape_control;

/// A line with the lines below it.
#[derive(Debug)]
pub(super) struct Node {
    line: String,
    below: Vec<Node>,
}

/// The characters of the branches.
#[derive(Clone, Copy, Debug)]
pub(super) enum Style {
    Lines,
    Ascii,
}

impl Style {
    /// Lines if the locale is UTF-8.
    pub(super) fn of_locale() -> Self {
        let set = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(|name| std::env::var(name).ok());
        let locale = set.into_iter().find(|value| !value.is_empty()).unwrap_or_default().to_ascii_uppercase();
        if locale.contains("UTF-8") || locale.contains("UTF8") { Self::Lines } else { Self::Ascii }
    }

    /// The prefixes of a node's line and of the lines below it.
    fn branches(self, last: bool) -> (&'static str, &'static str) {
        match (self, last) {
            (Self::Lines, false) => ("├─ ", "│  "),
            (Self::Lines, true) => ("└─ ", "   "),
            (Self::Ascii, false) => ("|-- ", "|   "),
            (Self::Ascii, true) => ("`-- ", "    "),
        }
    }
}

impl Node {
    fn new(line: impl AsRef<str>, below: Vec<Self>) -> Self {
        Self { line: escape_control(line.as_ref()), below }
    }

    fn leaf(line: impl AsRef<str>) -> Self {
        Self::new(line, Vec::new())
    }

    /// The tree in lines.
    pub(super) fn draw(&self, style: Style) -> String {
        let mut text = format!("{}\n", self.line);
        self.draw_below(style, "", &mut text);
        text
    }

    fn draw_below(&self, style: Style, before: &str, text: &mut String) {
        for (number, node) in (1..).zip(&self.below) {
            let (branch, rest) = style.branches(number == self.below.len());
            let _ = writeln!(text, "{before}{branch}{}", node.line);
            node.draw_below(style, &format!("{before}{rest}"), text);
        }
    }
}

/// The tree of a jail, with all its existing parts.
pub(super) fn of(found: &Inspection) -> Node {
    let paths = &found.paths;
    let age = super::age(found);
    let ended = found.ended.map(|ended| format!(", {ended}")).unwrap_or_default();
    let mounts = found.mounts.iter().map(|mount| {
        let read_only = if mount.read_only { ", read-only" } else { "" };
        Node::leaf(format!("mount {} ({}{read_only})", mount.point, mount.kind))
    });
    let sockets = paths.sockets.iter().map(|socket| Node::leaf(format!("socket {socket}")));
    let root = paths
        .root
        .iter()
        .map(|root| Node::new(format!("root {root}"), mounts.clone().chain(sockets.clone()).collect()));
    let netns = paths.netns.iter().map(|netns| Node::leaf(format!("network namespace {netns}")));
    let cgroups = paths.cgroups.iter().map(|cgroup| Node::leaf(format!("cgroup {cgroup}")));
    let roots =
        found.processes.iter().filter(|one| !found.processes.iter().any(|other| other.pid == one.parent));
    let processes = roots.map(|process| descent(process, found));
    let receipts = std::iter::once(&paths.receipt).map(|receipt| Node::leaf(format!("receipt {receipt}")));
    let logs = paths.logs.iter().map(|log| Node::leaf(format!("log {log}")));
    let parts = root.chain(netns).chain(cgroups).chain(processes).chain(receipts).chain(logs);
    Node::new(format!("{} ({}{age}{ended})", found.id, found.state), parts.collect())
}

/// A process with its descendants.
fn descent(process: &Member, found: &Inspection) -> Node {
    let is = |role: Option<stockade::inspect::Process>| role.is_some_and(|role| role.pid == process.pid);
    let role = match process {
        _ if is(found.vmm) => "VMM",
        _ if is(found.monitor) => "monitor",
        _ => "process",
    };
    // Each process that is reached from a root has one parent, so the recursion ends even if pids were reused.
    let children =
        found.processes.iter().filter(|child| child.parent == process.pid && child.pid != process.pid);
    let line = format!("{role} {} {}", process.pid, process.name);
    Node::new(line, children.map(|child| descent(child, found)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_drawn_with_lines_or_without() {
        let tree = Node::new(
            "a",
            vec![
                Node::new("b", vec![Node::leaf("c\u{1b}[31m"), Node::leaf("d")]),
                Node::new("e", vec![Node::leaf("f")]),
            ],
        );
        let lines = "a\n├─ b\n│  ├─ c\\u{1b}[31m\n│  └─ d\n└─ e\n   └─ f\n";
        assert_eq!(tree.draw(Style::Lines), lines);
        let ascii = "a\n|-- b\n|   |-- c\\u{1b}[31m\n|   `-- d\n`-- e\n    `-- f\n";
        assert_eq!(tree.draw(Style::Ascii), ascii);
    }
}
