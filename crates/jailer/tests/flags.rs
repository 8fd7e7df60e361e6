//! Compares the flag parser with its model on thousands of command lines. The fuzz target uses the same model.
#![allow(missing_docs)]

use std::ffi::OsString;

use proptest::prelude::*;

#[path = "../../../fuzz/flags_model.rs"]
mod flags_model;

use flags_model::{BARE, Outcome, VALUED, fuzz_one, model, parser};

/// An argument of a command line, usually a meaningful one.
fn argument() -> impl Strategy<Value = Vec<u8>> {
    let flag = prop::sample::select([&VALUED[..], &BARE].concat());
    let special =
        prop::sample::select(vec!["--", "-h", "--help", "--version", "-", "---", "", "--id=a", "id"]);
    prop_oneof![
        8 => flag.prop_map(|name| format!("--{name}").into_bytes()),
        6 => "[a-z0-9/=.-]{0,6}".prop_map(String::into_bytes),
        1 => special.prop_map(|argument| argument.as_bytes().to_vec()),
        1 => prop::collection::vec(1..=255_u8, 0..5),
    ]
}

/// A complete command line in any order, with at most one arbitrary argument inserted. The parser usually reaches its
/// end.
fn nearly_complete() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let pairs = ["id", "exec-file", "uid", "gid", "netns", "cgroup", "cgroup", "daemonize"];
    let pairs = prop::sample::subsequence(pairs.to_vec(), 4..=8).prop_shuffle();
    let line = pairs.prop_map(|names| {
        names
            .into_iter()
            .flat_map(|name| {
                let value = VALUED.contains(&name).then(|| b"value".to_vec());
                [Some(format!("--{name}").into_bytes()), value].into_iter().flatten()
            })
            .collect::<Vec<_>>()
    });
    (line, prop::option::of(argument()), any::<prop::sample::Index>()).prop_map(|(mut line, extra, at)| {
        if let Some(extra) = extra {
            line.insert(at.index(line.len() + 1), extra);
        }
        line
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_parser_agrees_with_the_model(arguments in prop::collection::vec(argument(), 0..16)) {
        fuzz_one(&arguments.join(&0));
    }

    #[test]
    fn the_parser_agrees_on_nearly_complete_command_lines(arguments in nearly_complete()) {
        fuzz_one(&arguments.join(&0));
    }

    #[test]
    fn the_parser_agrees_on_arbitrary_bytes(data in prop::collection::vec(any::<u8>(), 0..64)) {
        fuzz_one(&data);
    }
}

/// If the model only refused, agreement would mean little.
#[test]
fn the_model_reaches_every_outcome() {
    let arguments = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
    assert_eq!(model(&arguments("x -h")), Outcome::Help);
    assert_eq!(model(&arguments("x --version")), Outcome::Version);
    assert!(
        matches!(model(&arguments("--id a --id b")), Outcome::Refused(message) if message.contains("more than once"))
    );
    let whole = arguments("--id a --exec-file b --uid 1 --gid 2 --cgroup c --cgroup d -- --id");
    let Outcome::Jail(flags, extra) = model(&whole) else { panic!("a whole command line") };
    assert_eq!((flags["cgroup"].len(), extra), (2, arguments("--id")));
    assert_eq!(parser(&whole), model(&whole));
}

#[test]
fn the_manual_page_has_every_flag_and_no_other() {
    let page = include_str!("../../../packaging/man/stockade-jailer.1").replace("\\-", "-");
    let options =
        page.split(".SH ").find(|section| section.starts_with("OPTIONS")).expect("there are options");
    let lines = options.lines().filter(|line| line.starts_with(".BI --") || line.starts_with(".B --"));
    let mut described: Vec<&str> = lines
        .filter_map(|line| line.split("--").nth(1)?.split(' ').next())
        .filter(|name| !name.is_empty())
        .collect();
    described.sort_unstable();
    let mut flags = [&VALUED[..], &BARE, &["help", "version"]].concat();
    flags.sort_unstable();
    assert_eq!(described, flags);
}
