//! Checks that the tests in the list of differences exist.

const LIST: &str = include_str!("../../../../docs/jailer-differences.md");

const SOURCES: [(&str, &str); 9] = [
    ("cgroup_v1", include_str!("cgroup_v1.rs")),
    ("cgroup_v2", include_str!("cgroup_v2.rs")),
    ("command_line", include_str!("command_line.rs")),
    ("daemonize", include_str!("daemonize.rs")),
    ("faults", include_str!("faults.rs")),
    ("hostile", include_str!("hostile.rs")),
    ("pid_ns", include_str!("pid_ns.rs")),
    ("process", include_str!("process.rs")),
    ("tree", include_str!("tree.rs")),
];

#[test]
fn every_test_that_the_list_names_exists() {
    let named = LIST.split('`').skip(1).step_by(2).filter_map(|code| code.split_once("::"));
    let mut count = 0;
    // A test of the command checks the names of its tests.
    let elsewhere = ["attacked", "inherited", "syscalls"];
    for (file, test) in named.filter(|(file, _)| !elsewhere.contains(file)) {
        let source = SOURCES.iter().find(|(name, _)| *name == file).unwrap_or_else(|| panic!("{file}"));
        assert!(source.1.contains(&format!("fn {test}() {{")), "{file}::{test}");
        count += 1;
    }
    assert!(count > 20, "the list names its tests: {count}");
}

/// A test with two outcomes needs a row in the list.
#[test]
fn every_file_with_two_outcomes_is_on_the_list() {
    for (name, source) in SOURCES {
        if source.contains("drop_in_or_firecracker(") {
            assert!(LIST.contains(&format!("`{name}::")), "{name} has differences that are not listed");
        }
    }
}
