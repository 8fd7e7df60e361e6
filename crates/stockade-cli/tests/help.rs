//! The help of every command is one screen, and has a working example.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

use testkit::{Output, commands, program, run_with};

/// Help on a screen of 100 columns.
fn help(arguments: &[&str]) -> String {
    let Output { code, stdout, stderr } =
        run_with(Command::new(program("stockade")).args(arguments).env("COLUMNS", "100"));
    assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}");
    stdout
}

#[test]
fn help_is_one_screen() {
    let mut all: Vec<Vec<String>> = commands().into_iter().map(|command| vec![command]).collect();
    assert!(all.len() > 20, "{all:?}");
    all.push(Vec::new());
    for command in &all {
        for flag in ["-h", "--help"] {
            let arguments: Vec<&str> = command.iter().map(String::as_str).chain([flag]).collect();
            let text = help(&arguments);
            assert!(text.lines().count() <= 40, "{arguments:?}: {} lines\n{text}", text.lines().count());
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(100), "{arguments:?}: {widest:?} columns\n{text}");
        }
    }
}

#[test]
fn help_shows_an_example() {
    for command in commands() {
        let text = help(&[&command, "--help"]);
        let (_, examples) = text.split_once("\nExample").unwrap_or_else(|| panic!("{command} shows none"));
        let own = format!("stockade {command}");
        assert!(examples.lines().any(|line| line.starts_with("  ") && line.contains(&own)), "{text}");
    }
}
