//! A drawing of a jail as a tree.

use std::collections::BTreeMap;
use std::fmt::Write;

use stockade::inspect::{Inspection, Member, Mount};

use crate::terminal::output::escape_control;

/// A line with the lines below it.
#[derive(Clone, Debug)]
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
    let mount = |mount: &Mount| {
        let read_only = if mount.read_only { ", read-only" } else { "" };
        Node::leaf(format!("mount {} ({}{read_only})", mount.point, mount.kind))
    };
    let mounts = match found.mounts.result() {
        Ok(mounts) => mounts.iter().map(mount).collect(),
        Err(reason) => vec![Node::leaf(format!("mounts unknown: {reason}"))],
    };
    let sockets = paths.sockets.iter().map(|socket| Node::leaf(format!("socket {socket}")));
    let root = paths.root.iter().map(|root| {
        Node::new(format!("root {root}"), mounts.iter().cloned().chain(sockets.clone()).collect())
    });
    let netns = paths.netns.iter().map(|netns| Node::leaf(format!("network namespace {netns}")));
    let cgroups = paths.cgroups.iter().map(|cgroup| Node::leaf(format!("cgroup {cgroup}")));
    let processes = Family::of(found).draw();
    let receipts = std::iter::once(&paths.receipt).map(|receipt| Node::leaf(format!("receipt {receipt}")));
    let logs = paths.logs.iter().map(|log| Node::leaf(format!("log {log}")));
    let parts = root.chain(netns).chain(cgroups).chain(processes).chain(receipts).chain(logs);
    Node::new(format!("{} ({}{age}{ended})", found.id, found.state), parts.collect())
}

/// The most processes of a jail that are drawn, and the most generations: a jail can have any number of both.
const MOST_PROCESSES: usize = 200;
const MOST_GENERATIONS: usize = 16;

/// The processes of a jail, by their parents.
struct Family<'f> {
    found: &'f Inspection,
    /// The processes without a parent in the jail.
    roots: Vec<&'f Member>,
    children: BTreeMap<i32, Vec<&'f Member>>,
    drawn: usize,
}

impl<'f> Family<'f> {
    fn of(found: &'f Inspection) -> Self {
        let mut children = BTreeMap::<i32, Vec<&Member>>::new();
        for process in &found.processes {
            children.entry(process.parent).or_default().push(process);
        }
        let pids: Vec<i32> = found.processes.iter().map(|process| process.pid).collect();
        let mut roots: Vec<&Member> = Vec::new();
        for parent in children.keys().filter(|parent| pids.binary_search(parent).is_err()) {
            roots.extend(&children[parent]);
        }
        roots.sort_by_key(|process| process.pid);
        Self { found, roots, children, drawn: 0 }
    }

    fn draw(mut self) -> Vec<Node> {
        let roots = std::mem::take(&mut self.roots);
        let mut nodes = self.nodes(&roots, 0);
        let more = self.found.processes.len() - self.drawn;
        if more > 0 {
            nodes.push(Node::leaf(format!("and {more} more processes")));
        }
        nodes
    }

    /// These processes with their descendants. Each process that is reached from a root has one parent, so none is
    /// drawn twice, even if pids were reused.
    fn nodes(&mut self, processes: &[&Member], generation: usize) -> Vec<Node> {
        let mut nodes = Vec::new();
        for process in processes {
            if self.drawn >= MOST_PROCESSES || generation >= MOST_GENERATIONS {
                break;
            }
            self.drawn += 1;
            let children = self.children.remove(&process.pid).unwrap_or_default();
            let line = self.line(process);
            nodes.push(Node::new(line, self.nodes(&children, generation + 1)));
        }
        nodes
    }

    fn line(&self, process: &Member) -> String {
        let is = |role: Option<stockade::inspect::Process>| role.is_some_and(|role| role.pid == process.pid);
        let role = match process {
            _ if is(self.found.vmm) => "VMM",
            _ if is(self.found.monitor) => "monitor",
            _ => "process",
        };
        format!("{role} {} {}", process.pid, process.name)
    }
}

#[cfg(test)]
mod tests {
    use stockade::Known;

    use super::*;

    fn jail_with(processes: Vec<Member>) -> Inspection {
        Inspection {
            id: "vm".parse().expect("an id"),
            state: stockade::JailState::Running,
            problem: None,
            created_ms: None,
            age_seconds: None,
            vmm: None,
            monitor: None,
            keeper: None,
            locked_by: None,
            ended: None,
            oom_kills: None,
            paths: stockade::inspect::Paths {
                receipt: std::path::PathBuf::from("/receipt").into(),
                logs: Vec::new(),
                root: None,
                pid_file: None,
                sockets: Vec::new(),
                netns: None,
                cgroups: Vec::new(),
            },
            processes,
            mounts: Known::default(),
            spec: None,
            steps: Vec::new(),
            enter: Vec::new(),
        }
    }

    fn member(pid: i32, parent: i32) -> Member {
        Member { pid, parent, name: "p".to_owned() }
    }

    #[test]
    fn any_number_of_processes_is_drawn_in_part_and_counted() {
        for (parent_of, drawn) in [
            (|pid| pid - 1, MOST_GENERATIONS),
            (|_| 1, MOST_PROCESSES),
            // Two processes that are parents of each other, with all others below them.
            (|pid| if pid == 2 { 3 } else { 2 }, 0),
        ] as [(fn(i32) -> i32, usize); 3]
        {
            let processes = (2..20_002).map(|pid| member(pid, parent_of(pid))).collect();
            let text = of(&jail_with(processes)).draw(Style::Lines);
            assert!(text.contains(&format!("and {} more processes", 20_000 - drawn)), "{text}");
            assert_eq!(text.lines().filter(|line| line.contains("─ process ")).count(), drawn, "{text}");
            assert!(text.len() < 20_000, "{}", text.len());
        }
    }

    #[test]
    fn few_processes_are_all_drawn() {
        let text = of(&jail_with(vec![member(5, 1), member(7, 5), member(9, 1)])).draw(Style::Ascii);
        assert_eq!(
            text,
            "vm (running)\n|-- process 5 p\n|   `-- process 7 p\n|-- process 9 p\n`-- receipt /receipt\n"
        );
    }

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
