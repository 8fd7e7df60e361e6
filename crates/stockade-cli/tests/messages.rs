//! Stdout has data and stderr has messages; `-q` prints errors only, `-v` prints the steps, and programs get no colour.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

use testkit::{Guard, Output, command, commands, privileged, program, run_with, said, stockade};

/// A command line of each command that fails early, for example because its jail does not exist.
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
fn every_failed_command_prints_one_line_on_stderr_only() {
    privileged!(guard, {
        let tried: Vec<&str> = FAILING.iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(tried.len(), commands().len());
        assert!(commands().iter().all(|command| tried.contains(&command.as_str())), "{:?}", commands());
        for line in FAILING {
            let arguments: Vec<&str> = line.split(' ').collect();
            let plain = stockade(&guard, &arguments);
            assert!(plain.code != 0 && plain.stdout.is_empty(), "{line}: {plain:?}");
            assert!(plain.stderr.starts_with("stockade: "), "{line}: {plain:?}");
            assert_eq!(plain.stderr.lines().count(), 1, "{line}: {plain:?}");
            // `--quiet` keeps errors.
            let quiet = stockade(&guard, &[&["-q"], &arguments[..]].concat());
            assert_eq!((quiet.code, &quiet.stderr), (plain.code, &plain.stderr), "{line}");
        }
    });
}

/// Creates a jail and starts its VMM.
fn start(guard: &Guard) {
    let (base, probe) = (guard.base().display().to_string(), program("stockade-probe").display().to_string());
    said(guard, &["create", "--id", "vm", "--exec-file", &probe, "--chroot-base-dir", &base]);
    said(guard, &["start", "vm", "--", "sleep"]);
}

#[test]
fn verbose_adds_the_steps_on_stderr_only() {
    privileged!(guard, {
        start(&guard);
        for line in ["ps -q", "logs vm", "profiles", "version", "inspect --json none"] {
            let arguments: Vec<&str> = line.split(' ').collect();
            let (plain, verbose) =
                (stockade(&guard, &arguments), stockade(&guard, &[&["-vv"], &arguments[..]].concat()));
            assert_eq!((plain.code, plain.stdout), (verbose.code, verbose.stdout), "{line}");
        }
        let removed = stockade(&guard, &["rm", "-v", "--force", "vm"]);
        assert_eq!((removed.code, removed.stdout.as_str()), (0, "vm\n"));
        assert!(removed.stderr.contains(" ms  removed jail directory "), "{}", removed.stderr);
        assert!(!removed.stderr.contains(" ms  write receipt "), "{}", removed.stderr);
        let probe = program("stockade-probe").display().to_string();
        let base = guard.base().display().to_string();
        let arguments =
            ["run", "-vv", "--id", "vm", "--exec-file", &probe, "--chroot-base-dir", &base, "--", "exit=0"];
        let ran = stockade(&guard, &arguments);
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
fn quiet_prints_errors_only() {
    privileged!(guard, {
        start(&guard);
        let talk = "stockade: the log of jail 'vm' is empty: its VMM wrote nothing\n";
        assert_eq!(stockade(&guard, &["logs", "vm"]).stderr, talk);
        for arguments in [
            &["-q", "logs", "vm"][..],
            &["logs", "-q", "vm"],
            &["logs", "vm", "--quiet"],
            &["logs", "-qv", "vm"],
        ] {
            assert_eq!(said(&guard, arguments), "", "{arguments:?}");
        }
        said(&guard, &["rm", "-qf", "vm"]);
    });
}

/// Runs a command on its own terminal, and returns its output there.
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

/// Runs a VMM on a terminal, and sends SIGTERM to the command once the VMM runs.
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
fn run_at_a_terminal_explains_how_to_kill_the_vmm() {
    privileged!(guard, {
        assert_eq!(interrupted(&guard, ""), "stockade: asked jail 'vm' to stop; repeat to kill it\r\n");
        assert_eq!(interrupted(&guard, "--quiet"), "");
        assert_eq!(interrupted(&guard, "2>/dev/null"), "", "stderr is no terminal");
    });
}

#[test]
fn output_has_no_colour_for_programs_and_with_no_color() {
    privileged!(guard, {
        let coloured = on_terminal(&guard, "--help", false);
        assert!(coloured.stdout.contains('\x1b'), "help is not marked up on a terminal: {}", coloured.stdout);
        let mut lines: Vec<String> =
            commands().into_iter().map(|command| format!("{command} --help")).collect();
        lines.extend(["--help", "ps", "doctor", "profiles", "runn"].map(str::to_owned));
        for line in lines {
            let arguments: Vec<&str> = line.split(' ').collect();
            let Output { stdout, stderr, .. } = run_with(&mut command(&guard, &arguments));
            assert!(!format!("{stdout}{stderr}").contains('\x1b'), "{line}: {stdout}{stderr}");
            let plain = on_terminal(&guard, &line, true);
            assert!(!plain.stdout.contains('\x1b'), "{line}: {}", plain.stdout);
        }
    });
}
