//! The flag parser against a model of it, on thousands of command lines; the model is also that of the fuzz
//! target.
#![allow(missing_docs)]

use std::ffi::OsString;

use proptest::prelude::*;

#[path = "../../../fuzz/flags_model.rs"]
mod flags_model;

use flags_model::{BARE, Outcome, VALUED, fuzz_one, model, parser};

/// A word of a command line: mostly such as mean something.
fn word() -> impl Strategy<Value = Vec<u8>> {
    let flag = prop::sample::select([&VALUED[..], &BARE].concat());
    let special =
        prop::sample::select(vec!["--", "-h", "--help", "--version", "-", "---", "", "--id=a", "id"]);
    prop_oneof![
        8 => flag.prop_map(|name| format!("--{name}").into_bytes()),
        6 => "[a-z0-9/=.-]{0,6}".prop_map(String::into_bytes),
        1 => special.prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(1..=255_u8, 0..5),
    ]
}

/// A whole command line in any order, so that the parser gets to its end, with a word of any kind in it
/// somewhere, or none.
fn nearly_whole() -> impl Strategy<Value = Vec<Vec<u8>>> {
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
    (line, prop::option::of(word()), any::<prop::sample::Index>()).prop_map(|(mut line, extra, at)| {
        if let Some(extra) = extra {
            line.insert(at.index(line.len() + 1), extra);
        }
        line
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_parser_does_as_the_model_does(words in prop::collection::vec(word(), 0..16)) {
        fuzz_one(&words.join(&0));
    }

    #[test]
    fn it_does_so_on_nearly_whole_command_lines(words in nearly_whole()) {
        fuzz_one(&words.join(&0));
    }

    #[test]
    fn it_does_so_on_any_bytes(data in prop::collection::vec(any::<u8>(), 0..64)) {
        fuzz_one(&data);
    }
}

/// Agreement on nothing but refusals would prove little.
#[test]
fn the_model_knows_every_outcome() {
    let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
    assert_eq!(model(&words("x -h")), Outcome::Help);
    assert_eq!(model(&words("x --version")), Outcome::Version);
    assert!(
        matches!(model(&words("--id a --id b")), Outcome::Refused(message) if message.contains("more than once"))
    );
    let whole = words("--id a --exec-file b --uid 1 --gid 2 --cgroup c --cgroup d -- --id");
    let Outcome::Jail(flags, extra) = model(&whole) else { panic!("a whole command line") };
    assert_eq!((flags["cgroup"].len(), extra), (2, words("--id")));
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
