//! A signal in the middle of a copy: it ends there, with a line, and nothing of it is left.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

use testkit::{Guard, Output, privileged, program, run_with, said};

/// Runs a command that gets SIGINT as it begins to copy.
fn interrupted(guard: &Guard, words: &[&str]) -> Output {
    let mut strace = Command::new("strace");
    // Whoever runs these tests in the background has them ignore Ctrl-C, and so would the command.
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=copy_file_range"]);
    strace.args(["-e", "inject=copy_file_range:signal=SIGINT:when=1", "env", "--default-signal=INT"]);
    strace.arg(program("stockade")).args(words).env("STOCKADE_STATE_DIR", guard.state());
    run_with(&mut strace)
}

fn image(guard: &Guard) -> String {
    guard.file("image", &"x".repeat(40 << 20)).display().to_string()
}

#[test]
fn a_jail_that_is_being_filled_goes() {
    privileged!(guard, {
        let (base, probe) =
            (guard.base().display().to_string(), program("stockade-probe").display().to_string());
        let image = image(&guard);
        let place = format!("{image}:copy");
        for (command, code) in [("create", 1), ("run", 125)] {
            let output = interrupted(
                &guard,
                &[
                    command,
                    "--id",
                    "vm",
                    "--exec-file",
                    &probe,
                    "--chroot-base-dir",
                    &base,
                    "--place",
                    &place,
                    "--",
                    "sleep",
                ],
            );
            let line = format!("stockade: stopped by a signal before '{image}' was placed\n");
            assert_eq!((output.code, output.stdout.as_str(), output.stderr), (code, "", line));
            assert!(!guard.base().exists() && !guard.state().exists());
        }
    });
}

#[test]
fn a_jail_that_is_there_stays_as_it_was() {
    privileged!(guard, {
        let (base, probe) =
            (guard.base().display().to_string(), program("stockade-probe").display().to_string());
        said(&guard, &["create", "--id", "vm", "--exec-file", &probe, "--chroot-base-dir", &base]);
        let root = guard.base().join("stockade-probe/vm/root");
        let there =
            || std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        let before = there();
        let image = image(&guard);
        let output = interrupted(&guard, &["place", "vm", &format!("{image}:copy")]);
        let line = format!("stockade: stopped by a signal before '{image}' was placed\n");
        assert_eq!((output.code, output.stdout.as_str(), output.stderr), (1, "", line));
        assert_eq!(there(), before);
        said(&guard, &["rm", "vm"]);
    });
}
