//! Unknown and missing arguments.

use super::*;

#[test]
fn control_characters_of_arguments_are_escaped() {
    let argument = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let cases = [
        (vec![argument(b"nc-\n1")], r"unrecognized subcommand 'nc-\n1'"),
        (vec!["kill".into(), "vm".into(), "-s\x1b[2J".into()], r"--signal: '\u{1b}[2J' is not a signal"),
        (
            vec!["ps".into(), "--state-dir".into(), "/etc/passwd/\n".into()],
            r"--state-dir: cannot open '/etc/passwd/\n': ",
        ),
        // The path may hold any bytes.
        (
            vec!["inspect".into(), "--state-dir".into(), argument(b"/\xfe"), argument(b"a\xff")],
            r"argument 4, 'a\xff', is not UTF-8; write it in UTF-8",
        ),
    ];
    for (arguments, line) in cases {
        let output = run("stockade", &arguments);
        assert!(output.stderr.starts_with(&format!("stockade: {line}")), "{arguments:?}: {output:?}");
        assert!(
            !output.stderr.trim_end_matches('\n').contains(char::is_control),
            "{arguments:?}: {output:?}"
        );
        assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{arguments:?}");
    }
}

#[test]
fn an_unknown_flag_is_named_with_the_closest_match() {
    privileged!(guard, {
        let mut arguments = Line::good(&guard).arguments("run");
        arguments.push("--exec-fil".into());
        let output = run("stockade", &arguments);
        assert_eq!(
            output.stderr,
            "stockade: unexpected argument '--exec-fil' found; did you mean '--exec-file'?\n"
        );
        assert_eq!(output.code, 125);
        nothing_created(&guard);
    });
}

#[test]
fn a_stray_argument_is_taken_for_the_vmms() {
    privileged!(guard, {
        let arguments = Line::good(&guard).arguments("run");
        // The second is slightly similar to --profile.
        for stray in ["boot", "--config-file"] {
            let output = run("stockade", &[&arguments[..], &[stray.into()]].concat());
            let said =
                format!("stockade: unexpected argument '{stray}' found; put the VMM's arguments after --\n");
            assert_eq!((output.code, output.stderr), (125, said));
            nothing_created(&guard);
        }
        let output = run("stockade", &["gc", "boot"]);
        assert_eq!(output.stderr, "stockade: unexpected argument 'boot' found; see `stockade gc --help`\n");
    });
}

#[test]
fn a_missing_flag_is_named() {
    privileged!(guard, {
        let line = Line::good(&guard).without("--id");
        refused(&guard, &line, "the following required arguments were not provided: --id <ID>; add it");
    });
}

#[test]
fn an_unknown_command_is_named() {
    let output = run("stockade", &["runn"]);
    assert_eq!((output.code, output.stdout.as_str()), (1, ""));
    assert_eq!(output.stderr, "stockade: unrecognized subcommand 'runn'; did you mean 'run'?\n");
}

/// Checks that a command line fails with a message that ends so.
fn fails_with(line: &str, end: &str) {
    let arguments: Vec<&str> = line.split(' ').collect();
    let output = run("stockade", &arguments);
    let code = if ["run", "exec"].iter().any(|word| line.starts_with(word)) { 125 } else { 1 };
    assert_eq!((output.code, output.stdout.as_str()), (code, ""), "{line}");
    assert_eq!(output.stderr.lines().count(), 1, "{line}");
    assert!(output.stderr.trim_end().ends_with(end), "{line}: {}", output.stderr);
}

#[test]
fn suggestions_are_limited_to_close_matches() {
    for (line, end) in [
        ("stopp", "'stopp'; did you mean 'stop'?"),
        ("logz", "'logz'; did you mean 'logs'?"),
        ("bogus", "unrecognized subcommand 'bogus'; list the commands with `stockade help`"),
        ("logs --sincere 1h vm", "unexpected argument '--sincere' found; see `stockade logs --help`"),
        ("stop --time 5 vm", "did you mean '--timeout'?"),
        ("run vm-1 /usr/bin/busybox", "'vm-1' found; name the jail with --id and the VMM with --exec-file"),
        ("start vm-1 --boot", "'--boot' found; put the VMM's arguments after --"),
        (
            "run --id vm --exec-file /bin/true --timeout 5",
            "were not provided: --ready[=<SOCKET>]; use --timeout with --ready",
        ),
        ("completions bsh", "did you mean 'bash'?"),
        ("--bogus", "unexpected argument '--bogus' found; see `stockade --help`"),
        ("logs vm -n 5s", "invalid digit found in string; use a whole number without a unit"),
    ] {
        fails_with(line, end);
    }
}

#[test]
fn commands_and_flags_of_other_tools_are_recognised() {
    for (line, end) in [
        ("ls", "'ls'; did you mean 'ps'?"),
        ("list", "did you mean 'ps'?"),
        ("remove", "did you mean 'rm'?"),
        ("delete", "did you mean 'rm'?"),
        ("status vm", "did you mean 'ps' or 'inspect'?"),
        ("prune", "did you mean 'gc'?"),
        ("pause vm", "'pause'; stockade pauses no VMM; use the VMM's own API"),
        ("images", "'images'; stockade has no images; use --place for files of the host"),
        ("kill -9 vm", "'-9' found; use -s 9 or -s KILL for a signal"),
        ("kill -TERM vm", "use -s 9 or -s KILL for a signal"),
        ("logs --tail 5 vm", "did you mean '-n N'?"),
        ("logs -n -5 vm", "-n takes no negative number"),
        ("exec -it vm -- sh", "stockade attaches the terminal automatically; remove this flag"),
        ("exec -e A=b vm -- env", "did you mean '--env NAME=VALUE'?"),
        ("start --ready run/a.sock vm", "use --ready=run/a.sock for a socket"),
        ("start --ready vm a.socket", "use --ready=a.socket for a socket"),
        ("create --id vm --exec-file /bin/true --grace 5", "'--grace' found; it is a flag of `run`"),
        ("--state-dir /x ps", "put --state-dir after the command"),
        ("rm -f many.toml", "did you mean '--file many.toml'?"),
        ("start many.toml", "did you mean '--file many.toml'?"),
        ("run many.toml", "did you mean '-f many.toml'?"),
        ("run -f many.toml --config x", "put the VMM's arguments after --"),
    ] {
        fails_with(line, end);
    }
    for (flags, end) in [
        ("-it", "stockade attaches the terminal automatically; remove this flag"),
        ("--volume /a:/b", "use --place SRC=NAME, with :bind for the host's own file"),
        ("-v /a:/b", "use --place SRC=NAME for files; -v is --verbose"),
        ("--env A=b", "a VMM has an empty environment; remove this flag"),
        ("--name x", "did you mean '--id'?"),
        ("--rm", "remove this flag: `run` removes its jail unless it is detached"),
        ("--ready a.sock", "use --ready=a.sock for a socket"),
        ("--uid -1", "--uid takes no negative number"),
        // Flags of Cloud Hypervisor.
        ("--memory size=1G", "put the VMM's arguments after --"),
        ("--cpus boot=2", "put the VMM's arguments after --"),
    ] {
        fails_with(&format!("run --id vm --exec-file /bin/true {flags}"), end);
    }
}
