//! Stdout is data, stderr is talk; `-q` leaves the failures, `-v` tells the steps, and nothing is coloured for programs.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

use testkit::{Guard, Output, command, commands, privileged, program, run_with, said, stockade};

/// A command line of each command that fails as soon as it looks for its state directory or its jail, which is none.
const FAILING: &[&str] = &[
    "run --id vm --exec-file /no/such",
    "create --id vm --exec-file /no/such",
    "plan --id vm --exec-file /no/such",
    "place none /etc/passwd",
    "unplace none /passwd",
    "start none",
    "wait none",
    "kill none",
    "stop none",
    "rm none",
    "logs none",
    "exec none -- /x",
    "shell none",
    "profiles none",
    "ps --state-dir /etc/passwd",
    "inspect none",
    "events --state-dir /etc/passwd",
    "top none",
    "gc --state-dir /etc/passwd",
    "host-setup --no-such-flag",
    "audit none",
    "doctor --state-dir /etc/passwd",
    "demo --chroot-base-dir /etc/passwd",
    "version --no-such-flag",
    "completions nosuchshell",
    "man nosuchcommand",
];

#[test]
fn every_command_fails_with_one_line_on_stderr_and_none_on_stdout() {
    privileged!(guard, {
        let tried: Vec<&str> = FAILING.iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(tried.len(), commands().len());
        assert!(commands().iter().all(|command| tried.contains(&command.as_str())), "{:?}", commands());
        for line in FAILING {
            let words: Vec<&str> = line.split(' ').collect();
            let plain = stockade(&guard, &words);
            assert!(plain.code != 0 && plain.stdout.is_empty(), "{line}: {plain:?}");
            assert!(plain.stderr.starts_with("stockade: "), "{line}: {plain:?}");
            assert_eq!(plain.stderr.lines().count(), 1, "{line}: {plain:?}");
            // A failure is no talk.
            let quiet = stockade(&guard, &[&["-q"], &words[..]].concat());
            assert_eq!((quiet.code, &quiet.stderr), (plain.code, &plain.stderr), "{line}");
        }
    });
}

/// Makes a jail and starts its VMM.
fn start(guard: &Guard) {
    let (base, probe) = (guard.base().display().to_string(), program("stockade-probe").display().to_string());
    said(guard, &["create", "--id", "vm", "--exec-file", &probe, "--chroot-base-dir", &base]);
    said(guard, &["start", "vm", "--", "sleep"]);
}

#[test]
fn with_v_the_same_is_on_stdout_and_the_steps_are_on_stderr() {
    privileged!(guard, {
        start(&guard);
        for line in ["ps -q", "logs vm", "profiles", "version", "inspect --json none"] {
            let words: Vec<&str> = line.split(' ').collect();
            let (plain, told) =
                (stockade(&guard, &words), stockade(&guard, &[&["-vv"], &words[..]].concat()));
            assert_eq!((plain.code, plain.stdout), (told.code, told.stdout), "{line}");
        }
        let removed = stockade(&guard, &["rm", "-v", "--force", "vm"]);
        assert_eq!((removed.code, removed.stdout.as_str()), (0, "vm\n"));
        assert!(removed.stderr.contains(" ms  removed jail directory "), "{}", removed.stderr);
        assert!(!removed.stderr.contains(" ms  write receipt "), "{}", removed.stderr);
        let probe = program("stockade-probe").display().to_string();
        let base = guard.base().display().to_string();
        let words =
            ["run", "-vv", "--id", "vm", "--exec-file", &probe, "--chroot-base-dir", &base, "--", "exit=0"];
        let ran = stockade(&guard, &words);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
        for step in [
            "write receipt ",
            "create file /stockade-probe, a copy of ",
            "the VMM's process will execute",
            "VMM runs as pid ",
        ] {
            assert!(ran.stderr.contains(&format!(" ms  {step}")), "{step}: {}", ran.stderr);
        }
    });
}

#[test]
fn with_q_there_is_no_talk() {
    privileged!(guard, {
        start(&guard);
        let talk = "stockade: jail 'vm' has no log; its VMM wrote nothing, or was not started by `start` or `run --detach`\n";
        assert_eq!(stockade(&guard, &["logs", "vm"]).stderr, talk);
        for words in [
            &["-q", "logs", "vm"][..],
            &["logs", "-q", "vm"],
            &["logs", "vm", "--quiet"],
            &["logs", "-qv", "vm"],
        ] {
            assert_eq!(said(&guard, words), "", "{words:?}");
        }
        said(&guard, &["rm", "-qf", "vm"]);
    });
}

/// Runs a command on a terminal of its own, and tells what it wrote there.
fn on_terminal(guard: &Guard, line: &str, no_color: bool) -> Output {
    let line = format!("{} {line}", program("stockade").display());
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("STOCKADE_STATE_DIR", guard.state()).env("TERM", "xterm");
    if no_color {
        script.env("NO_COLOR", "1");
    } else {
        script.env_remove("NO_COLOR");
    }
    run_with(&mut script)
}

/// Runs a VMM on a terminal, and asks the command to end once it runs.
fn interrupted(guard: &Guard, flags: &str) -> String {
    let [stockade, probe, base] = [program("stockade"), program("stockade-probe"), guard.base()];
    let (stockade, probe, base) = (stockade.display(), probe.display(), base.display());
    let line = format!(
        "sh -c '{stockade} run {flags} --id vm --exec-file {probe} --chroot-base-dir {base} -- sleep & \
         until {stockade} ps -q --filter state=running | grep -q vm; do :; done; kill -TERM $!; wait'"
    );
    let mut script = Command::new("script");
    run_with(script.args(["-qec", &line, "/dev/null"]).env("STOCKADE_STATE_DIR", guard.state())).stdout
}

#[test]
fn who_asks_at_a_terminal_for_the_end_is_told_how_to_make_it_come_sooner() {
    privileged!(guard, {
        assert_eq!(interrupted(&guard, ""), "stockade: asked jail 'vm' to stop; repeat to kill it\r\n");
        assert_eq!(interrupted(&guard, "--quiet"), "");
        assert_eq!(interrupted(&guard, "2>/dev/null"), "", "stderr is no terminal");
    });
}

#[test]
fn nothing_is_coloured_for_programs_nor_for_who_wants_no_colour() {
    privileged!(guard, {
        let coloured = on_terminal(&guard, "--help", false);
        assert!(coloured.stdout.contains('\x1b'), "help is not marked up on a terminal: {}", coloured.stdout);
        let mut lines: Vec<String> =
            commands().into_iter().map(|command| format!("{command} --help")).collect();
        lines.extend(["--help", "ps", "doctor", "profiles", "runn"].map(str::to_owned));
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let Output { stdout, stderr, .. } = run_with(&mut command(&guard, &words));
            assert!(!format!("{stdout}{stderr}").contains('\x1b'), "{line}: {stdout}{stderr}");
            let plain = on_terminal(&guard, &line, true);
            assert!(!plain.stdout.contains('\x1b'), "{line}: {}", plain.stdout);
        }
    });
}
