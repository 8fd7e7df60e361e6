//! Messages that name the way out, and that it is one.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use testkit::{Guard, as_str, command, create_probe, privileged, probe_line, said, stockade};

/// Starts `run` in the foreground, with its output in a pipe, and waits for the first line of it.
fn run(guard: &Guard, id: &str, more: &[&str]) -> Child {
    let mut child = command(guard, &as_str(&probe_line(guard, "run", id, more)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    child
}

fn end(mut child: Child) {
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    child.wait().unwrap();
}

/// Mounts a tmpfs in the tree of a jail.
fn mount_in(guard: &Guard, id: &str) -> PathBuf {
    let at = guard.base().join("stockade-probe").join(id).join("root/foreign");
    std::fs::create_dir_all(&at).unwrap();
    rustix::mount::mount("none", &at, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    at
}

const FORCE: &str = "stockade did not mount it; unmount it, or run `stockade gc --force`";

#[test]
fn foreign_mounts_name_gc_with_force_which_removes_them() {
    privileged!(guard, {
        // `rm`, `gc` after it, and the end of `run`.
        let id = create_probe(&guard, "rm", &[]);
        mount_in(&guard, &id);
        let removed = stockade(&guard, &["rm", &id]);
        assert!(removed.code == 1 && removed.stderr.contains(FORCE), "{removed:?}");
        let collected = stockade(&guard, &["gc"]);
        assert!(collected.code == 1 && collected.stdout.contains(FORCE), "{collected:?}");
        let report = stockade(&guard, &["gc", "--json"]);
        assert!(report.code == 1 && report.stdout.contains(FORCE), "{report:?}");
        let ran = guard.named("run");
        let mut child = command(&guard, &as_str(&probe_line(&guard, "run", &ran, &["--", "clock", "hold"])))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        mount_in(&guard, &ran);
        drop(child.stdin.take());
        let ended = child.wait_with_output().unwrap();
        assert!(String::from_utf8_lossy(&ended.stderr).contains(FORCE), "{ended:?}");
        let collected = said(&guard, &["gc", "--force"]);
        for id in [id, ran] {
            assert!(collected.contains(&format!("{id}: removed mount ")), "{collected}");
        }
        assert!(!guard.base().exists() && !guard.state().exists(), "the hint removes all");
    });
}

#[test]
fn a_mount_that_force_cannot_remove_has_its_own_reason() {
    privileged!(guard, {
        let id = create_probe(&guard, "shadow", &[]);
        let at = mount_in(&guard, &id);
        // A second mount over the directory of the executable hides the first from its path.
        let above = guard.base().join("stockade-probe");
        rustix::mount::mount("none", &above, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        let forced = stockade(&guard, &["gc", "--force"]);
        rustix::mount::unmount(&above, rustix::mount::UnmountFlags::DETACH).unwrap();
        assert!(!forced.stdout.contains("run `stockade gc --force`"), "it was just run: {forced:?}");
        assert!(Path::new(&at).exists());
        stockade(&guard, &["gc", "--force"]);
        stockade(&guard, &["rm", "--force", &id]);
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}

#[test]
fn logs_of_a_foreground_run_name_where_its_output_goes() {
    privileged!(guard, {
        let id = guard.named("front");
        let child = run(&guard, &id, &["--", "clock", "sleep"]);
        let pid = child.id();
        let stdout = std::fs::read_link(format!("/proc/{pid}/fd/1")).unwrap();
        let line = format!(
            "stockade: jail '{id}' has no log: its output goes to process {pid}, which runs it in the foreground with \
             stdout '{}'; use `run --detach` or `start` to keep a log\n",
            stdout.display()
        );
        // `-f` does not wait for the end of a VMM whose output it cannot show.
        for flags in
            [&["logs", &id][..], &["logs", "-f", &id], &["logs", "-n", "3", &id], &["-q", "logs", &id]]
        {
            let logs = stockade(&guard, flags);
            assert_eq!(
                (logs.code, logs.stdout.as_str(), logs.stderr.as_str()),
                (1, "", line.as_str()),
                "{flags:?}"
            );
        }
        end(child);
    });
}

#[test]
fn logs_of_a_killed_run_say_that_its_caller_has_exited() {
    privileged!(guard, {
        let id = guard.named("orphan");
        let mut child = run(&guard, &id, &["--", "clock", "sleep"]);
        let pid = child.id();
        child.kill().unwrap();
        child.wait().unwrap();
        let logs = stockade(&guard, &["logs", &id]);
        let line = format!("jail '{id}' has no log: its output went to process {pid}, which has exited");
        assert!(logs.code == 1 && logs.stderr.contains(&line), "{logs:?}");
        said(&guard, &["rm", "--force", &id]);
    });
}

#[test]
fn logs_name_every_other_reason_for_having_none() {
    privileged!(guard, {
        let no_log = |id: &str, reason: &str| {
            let logs = stockade(&guard, &["logs", id]);
            let line = format!("stockade: jail '{id}' has no log: {reason}\n");
            assert_eq!((logs.code, logs.stdout.as_str(), logs.stderr), (1, "", line));
        };
        let id = create_probe(&guard, "none", &[]);
        no_log(&id, &format!("its VMM was not started; start it with `stockade start {id}`"));
        said(&guard, &["start", &id, "--log-size", "0", "--", "sleep"]);
        no_log(&id, "it was started with `--log-size 0`, which drops its output");
        said(&guard, &["rm", "--force", &id]);
        let daemon = guard.named("daemon");
        said(&guard, &as_str(&probe_line(&guard, "run", &daemon, &["--daemonize", "--", "sleep"])));
        no_log(&daemon, "`--daemonize` redirects its output to '/dev/null'");
        said(&guard, &["rm", "--force", &daemon]);
        // A VMM with a log that wrote nothing is no failure.
        let quiet = create_probe(&guard, "quiet", &[]);
        said(&guard, &["start", &quiet, "--", "sleep"]);
        let logs = stockade(&guard, &["logs", &quiet]);
        let line = format!("stockade: the log of jail '{quiet}' is empty: its VMM wrote nothing\n");
        assert_eq!((logs.code, logs.stdout.as_str(), logs.stderr), (0, "", line));
        said(&guard, &["rm", "--force", &quiet]);
    });
}
