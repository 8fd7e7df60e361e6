//! An out-of-memory kill is reported for every way of starting, by every command that reports an exit.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use testkit::{Guard, command, privileged, said, stockade};

/// A VMM that needs more memory than it may have.
const HUNGRY: [&str; 5] = ["dd", "if=/dev/urandom", "of=/dev/null", "bs=64M", "count=1"];

/// A VMM with a child that does, and which it survives.
const PARENT: [&str; 3] = ["sh", "-c", "dd if=/dev/urandom of=/dev/null bs=64M count=1; exit 3"];

const KILLED: &str = "killed by signal 9; out of memory: the kernel killed a process of the jail";

fn limit() -> &'static str {
    if testkit::unified_mount().is_some_and(|_| testkit::cgroup_v1_mount("memory").is_none()) {
        "memory.max=8M"
    } else {
        "memory.limit_in_bytes=8M"
    }
}

/// Arguments that create or run a jail of busybox with a memory limit.
fn arguments(guard: &Guard, command: &[&str], id: &str, vmm: &[&str]) -> Vec<String> {
    let (base, parent) = (guard.base().display().to_string(), guard.named("parent"));
    let fixed = ["--id", id, "--exec-file", "/bin/busybox", "--chroot-base-dir", &base];
    let cgroup = ["--cgroup", limit(), "--parent-cgroup", &parent, "--"];
    [command, &fixed, &cgroup, vmm].concat().into_iter().map(str::to_owned).collect()
}

fn as_str(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn json(guard: &Guard, arguments: &[&str]) -> Value {
    let output = stockade(guard, arguments);
    serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// What each command reports of an exited jail.
fn all_report(guard: &Guard, id: &str, code: u8, exit: &str, kills: u64) {
    let waited = stockade(guard, &["wait", id]);
    let line = format!("stockade: the VMM of jail '{id}' has exited: {exit}\n");
    assert_eq!((waited.code, waited.stdout, waited.stderr), (0, format!("{code}\n"), line));
    let waited = json(guard, &["wait", "--json", id]);
    assert_eq!((&waited["code"], &waited["oom_kills"]), (&code.into(), &kills.into()), "{waited}");
    let found = json(guard, &["inspect", "--json", id]);
    assert_eq!(found["oom_kills"], kills, "{found}");
    let text = said(guard, &["inspect", id]);
    assert!(text.contains(&format!("exit       {exit}\n")), "{text}");
    let listed = json(guard, &["ps", "--json"]);
    let listed = listed.as_array().unwrap().iter().find(|jail| jail["id"] == id).unwrap();
    assert_eq!(listed["oom_kills"], kills, "{listed}");
    let table = said(guard, &["ps"]);
    let row = table.lines().find(|row| row.starts_with(id)).unwrap();
    assert!(row.contains(&format!(" {code}/oom ")), "{table}");
    let events = ["events", "--all", "--until", "exited", id];
    assert!(said(guard, &events).ends_with(&format!("{id} exited {exit}\n")));
    let events = said(guard, &["events", "--all", "--json", "--until", "exited", id]);
    let event: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!((&event["event"], &event["oom_kills"]), (&"exited".into(), &kills.into()), "{event}");
}

/// Waits until there is a subscriber.
fn until_subscribed(guard: &Guard) {
    let is_one = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(".events-");
    while !std::fs::read_dir(guard.state()).is_ok_and(|mut all| all.any(|entry| entry.is_ok_and(is_one))) {
        std::thread::yield_now();
    }
}

/// Waits for the exit of a jail that may not have a monitor's record yet.
fn wait(guard: &Guard, id: &str) {
    assert_eq!(stockade(guard, &["wait", id]).code, 0);
}

#[test]
fn a_vmm_killed_by_the_kernel_is_reported_however_it_started() {
    privileged!(guard, {
        let started = guard.named("started");
        said(&guard, &as_str(&arguments(&guard, &["create"], &started, &HUNGRY)));
        said(&guard, &["start", &started]);
        all_report(&guard, &started, 137, KILLED, 1);
        let detached = guard.named("detached");
        said(&guard, &as_str(&arguments(&guard, &["run", "--detach"], &detached, &HUNGRY)));
        all_report(&guard, &detached, 137, KILLED, 1);
        // Of a jail file, one with a log and one without.
        let (with, without) = (guard.named("with"), guard.named("without"));
        let jail = |id: &str, size: &str| {
            format!(
                "[[jail]]\nid = '{id}'\nexec-file = '/bin/busybox'\nchroot-base-dir = '{}'\ncgroup = ['{}']\n\
                 parent-cgroup = '{}'\narguments = {HUNGRY:?}\nlog-size = '{size}'\n",
                guard.base().display(),
                limit(),
                guard.named("parent"),
            )
        };
        let file = guard.file("jails.toml", &(jail(&with, "1M") + &jail(&without, "0")));
        said(&guard, &["run", "--detach", "--file", &file.display().to_string()]);
        all_report(&guard, &with, 137, KILLED, 1);
        all_report(&guard, &without, 137, KILLED, 1);
        // A child of the VMM: the VMM lives, and exits by itself.
        let parent = guard.named("child");
        said(&guard, &as_str(&arguments(&guard, &["run", "--detach"], &parent, &PARENT)));
        let exit = "exit code 3; out of memory: the kernel killed a process of the jail";
        all_report(&guard, &parent, 3, exit, 1);
        said(&guard, &["rm", "--all"]);
        testkit::remove_cgroup(&guard.named("parent"));
    });
}

#[test]
fn the_report_survives_the_cgroup_and_the_jail() {
    privileged!(guard, {
        let id = guard.named("gone");
        said(&guard, &as_str(&arguments(&guard, &["create"], &id, &HUNGRY)));
        let events =
            command(&guard, &["events", "--until", "removed", &id]).stdout(Stdio::piped()).spawn().unwrap();
        until_subscribed(&guard);
        said(&guard, &["start", &id]);
        wait(&guard, &id);
        let cgroups = json(&guard, &["inspect", "--json", &id])["paths"]["cgroups"].clone();
        for cgroup in cgroups.as_array().unwrap() {
            std::fs::remove_dir(Path::new(cgroup.as_str().unwrap())).unwrap();
        }
        all_report(&guard, &id, 137, KILLED, 1);
        said(&guard, &["rm", &id]);
        let output = events.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(&format!("{id} exited {KILLED}\n")), "{text}");
        testkit::remove_cgroup(&guard.named("parent"));
    });
}

#[test]
fn a_kill_by_an_operator_is_not_reported_as_one_of_the_kernel() {
    privileged!(guard, {
        let id = guard.named("operator");
        said(&guard, &as_str(&arguments(&guard, &["run", "--detach"], &id, &["sleep", "600"])));
        assert_eq!(json(&guard, &["inspect", "--json", &id])["oom_kills"], 0);
        said(&guard, &["kill", &id]);
        assert_eq!(said(&guard, &["wait", &id]), "137\n");
        assert_eq!(json(&guard, &["wait", "--json", &id])["oom_kills"], 0);
        assert!(said(&guard, &["ps"]).contains(" 137  "));
        said(&guard, &["rm", &id]);
        testkit::remove_cgroup(&guard.named("parent"));
    });
}

#[test]
fn events_of_a_run_in_the_foreground_report_it() {
    privileged!(guard, {
        let id = guard.named("front");
        let events =
            command(&guard, &["events", "--until", "removed", &id]).stdout(Stdio::piped()).spawn().unwrap();
        until_subscribed(&guard);
        let ran = stockade(&guard, &as_str(&arguments(&guard, &["run"], &id, &HUNGRY)));
        let line = format!("stockade: the VMM of jail '{id}' has exited: {KILLED}\n");
        assert_eq!((ran.code, ran.stderr), (137, line));
        let output = events.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(&format!("{id} exited {KILLED}\n")), "{text}");
        testkit::remove_cgroup(&guard.named("parent"));
    });
}
