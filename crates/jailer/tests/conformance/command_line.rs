//! Section 1: the command line.

use std::ffi::OsString;

use crate::fixture::{alone, drop_in_or_firecracker, no_text, panicked, refuses, run};

fn line(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

fn refused(arguments: &str, message: &str) {
    refuses(&run(&line(arguments)), &format!("Failed to parse arguments: {message}"));
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
        let mut optional = group(&mut lines);
        // The text of one flag goes on in two lines of their own.
        let at = optional.iter().position(|line| line.starts_with("  --resource-limit ")).unwrap() + 1;
        let values: Vec<String> = optional.drain(at..at + 2).collect();
        for (line, value) in values.iter().zip(["fsize: ", "no-file: "]) {
            assert!(
                line.starts_with(char::is_whitespace) && line.trim_start().starts_with(value),
                "{line:?}"
            );
        }
        assert!(lines.next().unwrap().contains("--"), "the last sentence describes the separator");
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
        // All texts begin three blanks after the widest flag.
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
        for arguments in ["-h", "--version --help", "--colour -h", "--id --help", "--id a --id b -h"] {
            let output = run(&line(arguments));
            assert_eq!((output.code, &output.stdout), (0, &help), "{arguments}");
        }
        for arguments in ["--colour --version", "--version --id", "word --version"] {
            let output = run(&line(arguments));
            assert_eq!((output.code, &output.stdout), (0, &version), "{arguments}");
        }
    });
}

#[test]
fn arguments_after_the_separator_are_not_parsed() {
    alone!({
        refused("-- --help", "Argument 'exec-file' required, but not found.");
        refused("--id a --exec-file b --uid 1 -- --gid 2", "Argument 'gid' required, but not found.");
    });
}

#[test]
fn the_first_missing_flag_in_alphabetical_order_is_named() {
    alone!({
        for (arguments, name) in [
            ("", "exec-file"),
            ("--exec-file a", "gid"),
            ("--exec-file a --gid 1", "id"),
            ("--exec-file a --id 1 --gid 1", "uid"),
            ("--uid 1 --id a", "exec-file"),
        ] {
            refused(arguments, &format!("Argument '{name}' required, but not found."));
        }
    });
}

#[test]
fn a_value_with_two_dashes_counts_as_missing() {
    alone!({
        for (arguments, name) in
            [("--id", "id"), ("--id --uid 1", "id"), ("--cgroup", "cgroup"), ("--netns --", "netns")]
        {
            refused(arguments, &format!("The argument '{name}' requires a value, but none was supplied."));
        }
    });
}

#[test]
fn an_unknown_argument_is_named_without_its_dashes() {
    alone!({
        for (arguments, name) in
            [("--colour", "colour"), ("word", "word"), ("-x", "-x"), ("--id=a", "id=a"), ("--id a b", "b")]
        {
            let text =
                format!("Found argument '{name}' which wasn't expected, or isn't valid in this context.");
            refused(arguments, &text);
        }
    });
}

#[test]
fn a_repeated_flag_is_named() {
    alone!({
        for (arguments, name) in
            [("--id a --id b", "id"), ("--daemonize --daemonize", "daemonize"), ("--uid 1 --uid 1", "uid")]
        {
            refused(arguments, &format!("The argument '{name}' was provided more than once."));
        }
    });
}

#[test]
fn cgroups_and_limits_are_repeatable() {
    alone!({
        let arguments = "--cgroup a.b=1 --cgroup c.d=2 --resource-limit fsize=1 --resource-limit fsize=2";
        refused(arguments, "Argument 'exec-file' required, but not found.");
    });
}

#[test]
fn arguments_that_are_not_utf8_are_refused() {
    alone!({
        for arguments in [vec![no_text()], vec!["--id".into(), no_text()]] {
            let output = run(&arguments);
            if drop_in_or_firecracker(true, false) {
                assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{output:?}");
                assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
            } else {
                panicked(&output);
            }
        }
    });
}
