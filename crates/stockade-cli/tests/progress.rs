//! Long operations show their progress on a terminal, and clear it at the end.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

use testkit::{Guard, Output, privileged, program, run_with, said, stockade};

/// Runs a command on a terminal, with a delay in one of its system calls.
fn slowed(guard: &Guard, call: &str, line: &str) -> Output {
    let line = format!(
        "strace -f -qq -o /dev/null -e trace={call} -e inject={call}:delay_enter=300000 {} {line}",
        program("stockade").display()
    );
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("STOCKADE_STATE_DIR", guard.state()).env("TERM", "xterm");
    script.env_remove("NO_COLOR");
    run_with(&mut script)
}

fn create(guard: &Guard, id: &str) {
    let (base, probe) = (guard.base().display().to_string(), program("stockade-probe").display().to_string());
    said(guard, &["create", "--id", id, "--exec-file", &probe, "--chroot-base-dir", &base]);
}

/// Checks that the bar was shown and then cleared from the terminal.
fn shown_and_cleared(output: &Output, what: &str) {
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stdout.contains(what), "no bar: {output:?}");
    let (_, after) = output.stdout.rsplit_once(what).unwrap();
    assert!(after.contains("\x1b[2K"), "the bar stays: {output:?}");
}

#[test]
fn a_long_copy_shows_its_progress_in_bytes() {
    privileged!(guard, {
        create(&guard, "vm");
        let image = guard.file("image", &"x".repeat(40 << 20)).display().to_string();
        let output = slowed(&guard, "copy_file_range", &format!("place vm {image}:copy"));
        shown_and_cleared(&output, "/40.00 MiB");
        assert!(output.stdout.contains("/image\r\n"), "and the path all the same: {output:?}");
        let quiet = slowed(&guard, "copy_file_range", &format!("place -q vm {image}=other:copy"));
        assert_eq!((quiet.code, quiet.stdout.as_str()), (0, "/other\r\n"));
        said(&guard, &["rm", "vm"]);
    });
}

#[test]
fn a_long_removal_shows_its_progress_in_jails() {
    privileged!(guard, {
        // More jails than are removed in parallel, so that the first are removed before the last.
        let ids: Vec<String> = (0..20).map(|number| format!("vm-{number}")).collect();
        for id in &ids {
            create(&guard, id);
        }
        let output = slowed(&guard, "openat", "gc");
        shown_and_cleared(&output, "/20");
        assert!(output.stdout.contains("no abandoned jails"), "{output:?}");
        let output = slowed(&guard, "renameat", "rm --all");
        shown_and_cleared(&output, "/20");
        assert_eq!(output.stdout.matches("vm-").count(), 20, "{output:?}");
        assert_eq!(stockade(&guard, &["ps", "-q"]).stdout, "");
    });
}
