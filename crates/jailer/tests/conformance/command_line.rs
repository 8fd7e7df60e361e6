//! Section 1: the command line.

use std::ffi::OsString;

use crate::ground::{alone, no_text, refuses, run};

fn line(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

fn refused(words: &str, message: &str) {
    refuses(&run(&line(words)), &format!("Failed to parse arguments: {message}"));
}

#[test]
fn version_is_a_line_and_an_empty_line() {
    alone!({
        let output = run(&["--version"]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        let number = output.stdout.strip_prefix("Jailer v").unwrap();
        let number = number.trim_end_matches('\n').split('-').next().unwrap();
        assert_eq!(number.split('.').filter(|part| part.parse::<u32>().is_ok()).count(), 3, "{output:?}");
        assert!(output.stdout.ends_with("\n\n"), "{output:?}");
    });
}

#[test]
fn help_lists_every_flag_in_two_sorted_groups() {
    alone!({
        let output = run(&["--help"]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        let mut lines = output.stdout.lines();
        assert!(lines.next().unwrap().starts_with("Jailer v"));
        assert_eq!(lines.next(), Some(""));
        assert_eq!(lines.next(), Some("required arguments:"));
        let group = |lines: &mut std::str::Lines<'_>| -> Vec<String> {
            lines.take_while(|line| !line.is_empty()).map(str::to_owned).collect()
        };
        let required = group(&mut lines);
        assert_eq!(lines.next(), Some("optional arguments:"));
        let optional = group(&mut lines);
        assert!(lines.next().unwrap().contains("--"), "the last sentence tells of the separator");
        let flags = |group: &[String]| -> Vec<String> {
            group
                .iter()
                .map(|line| line.trim_start().split("   ").next().unwrap().trim().to_owned())
                .collect()
        };
        let valued = |name: &str| format!("--{name} <{name}>");
        assert_eq!(flags(&required), ["exec-file", "gid", "id", "uid"].map(valued));
        assert_eq!(
            flags(&optional),
            [
                valued("cgroup"),
                valued("cgroup-version"),
                valued("chroot-base-dir"),
                "--daemonize".into(),
                "--help".into(),
                valued("netns"),
                "--new-pid-ns".into(),
                valued("parent-cgroup"),
                valued("resource-limit"),
                "--version".into(),
            ]
        );
        // The texts begin in one column, three blanks behind the widest flag.
        for group in [required, optional] {
            let widest = flags(&group).iter().map(String::len).max().unwrap();
            for line in &group {
                assert!(line.starts_with("  --") && &line[2 + widest..5 + widest] == "   ", "{line:?}");
                assert_ne!(line.as_bytes()[5 + widest], b' ', "{line:?}");
            }
        }
        assert!(output.stdout.contains(r#" [default: "/srv/jailer"]"#), "{}", output.stdout);
        assert!(output.stdout.contains(r#" [default: "1"]"#), "{}", output.stdout);
        assert!(output.stdout.contains("Show the help message."), "{}", output.stdout);
    });
}

#[test]
fn help_wins_over_version_and_both_over_errors() {
    alone!({
        let (help, version) = (run(&["--help"]).stdout, run(&["--version"]).stdout);
        for words in ["-h", "--version --help", "--colour -h", "--id --help", "--id a --id b -h"] {
            let output = run(&line(words));
            assert_eq!((output.code, &output.stdout), (0, &help), "{words}");
        }
        for words in ["--colour --version", "--version --id", "word --version"] {
            let output = run(&line(words));
            assert_eq!((output.code, &output.stdout), (0, &version), "{words}");
        }
    });
}

#[test]
fn nothing_behind_two_dashes_is_read() {
    alone!({
        refused("-- --help", "Argument 'exec-file' required, but not found.");
        refused("--id a --exec-file b --uid 1 -- --gid 2", "Argument 'gid' required, but not found.");
    });
}

#[test]
fn the_first_missing_flag_in_alphabetical_order_is_named() {
    alone!({
        for (words, name) in [
            ("", "exec-file"),
            ("--exec-file a", "gid"),
            ("--exec-file a --gid 1", "id"),
            ("--exec-file a --id 1 --gid 1", "uid"),
            ("--uid 1 --id a", "exec-file"),
        ] {
            refused(words, &format!("Argument '{name}' required, but not found."));
        }
    });
}

#[test]
fn a_missing_value_is_named_and_one_with_two_dashes_is_missing() {
    alone!({
        for (words, name) in
            [("--id", "id"), ("--id --uid 1", "id"), ("--cgroup", "cgroup"), ("--netns --", "netns")]
        {
            refused(words, &format!("The argument '{name}' requires a value, but none was supplied."));
        }
    });
}

#[test]
fn an_unknown_word_is_named_without_its_dashes() {
    alone!({
        for (words, name) in
            [("--colour", "colour"), ("word", "word"), ("-x", "-x"), ("--id=a", "id=a"), ("--id a b", "b")]
        {
            let text =
                format!("Found argument '{name}' which wasn't expected, or isn't valid in this context.");
            refused(words, &text);
        }
    });
}

#[test]
fn a_flag_given_twice_is_named() {
    alone!({
        for (words, name) in
            [("--id a --id b", "id"), ("--daemonize --daemonize", "daemonize"), ("--uid 1 --uid 1", "uid")]
        {
            refused(words, &format!("The argument '{name}' was provided more than once."));
        }
    });
}

#[test]
fn cgroups_and_limits_may_be_given_again() {
    alone!({
        let words = "--cgroup a.b=1 --cgroup c.d=2 --resource-limit fsize=1 --resource-limit fsize=2";
        refused(words, "Argument 'exec-file' required, but not found.");
    });
}

#[test]
fn what_is_no_text_is_refused() {
    alone!({
        for words in [vec![no_text()], vec!["--id".into(), no_text()]] {
            let output = run(&words);
            let code = crate::ground::ours_or_original(1, 101);
            assert_eq!((output.code, output.stdout.as_str()), (code, ""), "{output:?}");
            assert!(!output.stderr.is_empty(), "{output:?}");
            if code == 1 {
                assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
            }
        }
    });
}
