//! A signal during a copy stops it, with one line and without leftovers.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

use testkit::{Guard, Output, privileged, program, run_with, said};

/// Runs a command that gets SIGINT when it starts to copy.
fn interrupted(guard: &Guard, arguments: &[&str]) -> Output {
    let mut strace = Command::new("strace");
    // A shell starts background jobs with SIGINT ignored, and the command would inherit that.
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=copy_file_range"]);
    strace.args(["-e", "inject=copy_file_range:signal=SIGINT:when=1", "env", "--default-signal=INT"]);
    strace.arg(program("stockade")).args(arguments).env("STOCKADE_STATE_DIR", guard.state());
    run_with(&mut strace)
}

fn image(guard: &Guard) -> String {
    guard.file("image", &"x".repeat(40 << 20)).display().to_string()
}

#[test]
fn a_new_jail_is_removed_if_its_copy_is_interrupted() {
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
fn an_existing_jail_is_unchanged_by_an_interrupted_copy() {
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
