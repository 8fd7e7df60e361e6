//! A VMM that forks as fast as it can is torn down with each method that a host may offer.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::{Guard, Mount, cgroup_mounts, cgroup_v1_mount, privileged, program, skip, tell};

/// Commands that unmount these hierarchies, as on a host without them.
fn unmount(hierarchies: &[&str]) -> String {
    let without = |mount: &Mount| {
        hierarchies
            .iter()
            .any(|name| mount.fs_type == *name || mount.fs_options.iter().any(|option| option == name))
    };
    let points = cgroup_mounts().into_iter().filter(without).map(|mount| mount.point);
    points.map(|at| format!("umount {}; ", at.display())).collect::<Vec<_>>().concat()
}

fn torn_down(guard: &Guard, pids: &Path, missing: &[&str]) {
    let script = format!("{}exec \"$@\"", unmount(missing));
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(program("stockade"));
    command.args(["run", "--id", &guard.named("bomb"), "--cgroup-version", "1", "--cgroup", "pids.max=200"]);
    command.args(["--parent-cgroup", guard.name(), "--exec-file"]).arg(program("stockade-probe"));
    command.arg("--chroot-base-dir").arg(guard.base()).arg("--state-dir").arg(guard.state());
    let command = command.args(["--", "bomb"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut run = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lit = String::new();
    BufReader::new(run.stdout.take().unwrap()).read_line(&mut lit).unwrap();
    assert_eq!(lit, "{\"bomb\":\"lit\"}\n");
    let cgroup = pids.join(guard.name()).join(guard.named("bomb"));
    let count =
        || std::fs::read_to_string(cgroup.join("pids.current")).unwrap().trim().parse::<u32>().unwrap();
    while count() < 190 {
        std::thread::sleep(Duration::from_millis(1));
    }
    kill_process(Pid::from_child(&run), Signal::TERM).unwrap();
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.as_ref()), (Some(143), ""), "without {missing:?}");
    assert!(!cgroup.exists());
}

#[test]
fn a_fork_bomb_is_torn_down_by_each_method() {
    privileged!(guard, {
        // Without the pids controller of cgroup v1 nothing limits a fork bomb here.
        let Some(pids) = cgroup_v1_mount("pids") else {
            return skip("a_fork_bomb_is_torn_down_by_each_method", "the pids controller of cgroup v1");
        };
        // With `cgroup.kill` in the unified hierarchy; with the freezer first; one process after the other.
        for missing in [&[][..], &["cgroup2"], &["cgroup2", "freezer"]] {
            for _ in 0..5 {
                torn_down(&guard, &pids, missing);
            }
        }
        tell("15 fork bombs of 200 processes torn down, in 3 ways");
    });
}

/// The processes with this word in their command lines.
fn with_word(word: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let has_word = |entry: &std::fs::DirEntry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(word))
    };
    processes.filter(has_word).count()
}

#[test]
fn a_chain_of_forks_is_ended_without_any_cgroup() {
    privileged!(guard, {
        // Each process of the chain forks the next one and exits. It ends by itself, if nothing else ends it.
        let word = guard.named("chain");
        let script = format!(
            ": {word}; f() {{ [ $1 -gt 0 ] && f $(($1 - 1)) & }}; f 1000000; echo lit; exec /busybox sleep 1000"
        );
        let hidden = format!("{}exec \"$@\"", unmount(&["cgroup", "cgroup2"]));
        for ending in [&["stop"][..], &["rm", "--force"]] {
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", &hidden, "sh"]).arg(program("stockade"));
            command.args(["run", "--detach", "--id", &guard.named("vm"), "--exec-file", "/bin/busybox"]);
            command.arg("--chroot-base-dir").arg(guard.base()).args(["--", "sh", "-c", &script]);
            let started = testkit::run_with(command.env("STOCKADE_STATE_DIR", guard.state()));
            assert_eq!((started.code, started.stderr.as_str()), (0, ""));
            while !testkit::said(&guard, &["logs", &guard.named("vm")]).contains("lit") {
                std::thread::sleep(Duration::from_millis(1));
            }
            let id = guard.named("vm");
            let ended = testkit::stockade(&guard, &[ending, &[&id]].concat());
            assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ending:?}");
            // Nothing is left that could fork again.
            assert_eq!([with_word(&word), with_word(&word), with_word(&word)], [0; 3], "after {ending:?}");
            if ending == ["stop"] {
                testkit::said(&guard, &["rm", &id]);
            }
        }
    });
}
