//! Jails watched from other commands: `events`, `wait`, `logs -f`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testkit::{Guard, command, privileged, program, said, stockade};

/// Arguments that create or run a jail.
fn arguments<'w>(guard: &Guard, command: &'w str, id: &'w str, vmm: &[&'w str]) -> Vec<String> {
    let (base, probe) = (guard.base().display().to_string(), program("stockade-probe").display().to_string());
    let fixed = [command, "--id", id, "--exec-file", &probe, "--chroot-base-dir", &base, "--"];
    fixed.iter().chain(vmm).map(|word| (*word).to_owned()).collect()
}

fn create(guard: &Guard, id: &str) -> String {
    let id = guard.named(id);
    let arguments = arguments(guard, "create", &id, &[]);
    said(guard, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    id
}

fn run(guard: &Guard, id: &str, vmm: &[&str]) -> Child {
    let arguments = arguments(guard, "run", id, vmm);
    command(guard, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

/// Starts a command that runs on, and returns it with its stdout.
fn follow(guard: &Guard, arguments: &[&str]) -> (Child, BufReader<ChildStdout>) {
    // A shell starts background jobs with SIGINT ignored, and the command would inherit that.
    let mut heedful = Command::new("env");
    heedful.arg("--default-signal").arg(program("stockade")).args(arguments);
    heedful.env("STOCKADE_STATE_DIR", guard.state()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = heedful.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    (child, lines)
}

fn line(from: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Waits until there is a subscriber.
fn until_subscribed(guard: &Guard) {
    let is_one = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(".events-");
    while !std::fs::read_dir(guard.state()).is_ok_and(|mut all| all.any(|entry| entry.is_ok_and(is_one))) {
        std::thread::yield_now();
    }
}

#[test]
fn events_are_printed_as_they_happen_until_a_signal() {
    privileged!(guard, {
        for signal in [Signal::INT, Signal::TERM] {
            let (mut events, mut lines) = follow(&guard, &["events", "--all"]);
            until_subscribed(&guard);
            let id = create(&guard, "vm");
            let shown = line(&mut lines);
            let (time, rest) = shown.split_once(' ').unwrap();
            assert!(time.len() == "2026-01-31T23:59:59.999Z".len() && time.ends_with('Z'), "{time}");
            assert_eq!(rest, format!("{id} created"));
            let pid = said(&guard, &["start", &id, "--", "sleep"]);
            let shown = line(&mut lines);
            assert!(shown.ends_with(&format!("{id} started pid {}", pid.trim())), "{pid}: {shown}");
            said(&guard, &["rm", "--force", &id]);
            assert!(line(&mut lines).ends_with(&format!("{id} exited killed by signal 9")));
            assert!(line(&mut lines).ends_with(&format!("{id} removed")));
            send(&events, signal);
            assert_eq!(events.wait().unwrap().code(), Some(0));
            assert!(!guard.state().exists(), "a subscriber that ends takes its presence along");
        }
    });
}

#[test]
fn json_events_are_one_line_each_up_to_the_awaited_one() {
    privileged!(guard, {
        let (a, b) = (create(&guard, "a"), create(&guard, "b"));
        let arguments = ["events", "--json", "--all", "--until", "exited", "--timeout", "60", &a];
        let (mut events, lines) = follow(&guard, &arguments);
        said(&guard, &["start", &b, "--", "exit=1"]);
        let pid: i32 = said(&guard, &["start", &a, "--", "exit=7"]).trim().parse().unwrap();
        let printed: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
        assert_eq!(events.wait().unwrap().code(), Some(0));
        assert!(printed.iter().all(|event| event["id"] == *a && event["time_ms"].is_u64()), "{printed:?}");
        let kinds: Vec<&Value> = printed.iter().map(|event| &event["event"]).collect();
        assert_eq!(kinds, ["created", "started", "exited"]);
        assert_eq!(
            (&printed[1]["pid"], &printed[2]["how"]),
            (&pid.into(), &serde_json::json!({ "exited": 7 }))
        );
        let late = stockade(&guard, &["events", "--until", "removed", "--timeout", "0", &a]);
        assert_eq!((late.code, late.stdout.as_str()), (124, ""));
        said(&guard, &["rm", &a, &b]);
        assert!(!guard.state().exists());
    });
}

#[test]
fn the_exit_of_a_vmm_of_run_is_known_to_other_commands() {
    privileged!(guard, {
        for (word, code) in [("exit=42", "42\n"), ("signal=9", "137\n")] {
            let id = guard.named("run");
            let mut run = run(&guard, &id, &["sleep-ms=200", word]);
            assert!(
                said(&guard, &["events", "--all", "--until", "started", "--timeout", "60", &id])
                    .contains("started")
            );
            assert_eq!(said(&guard, &["wait", &id]), code);
            run.wait().unwrap();
        }
        assert!(!guard.state().exists());
    });
}

#[test]
fn wait_any_names_the_first_jail_that_exits() {
    privileged!(guard, {
        let (a, b) = (create(&guard, "a"), create(&guard, "b"));
        said(&guard, &["start", &a, "--", "sleep"]);
        said(&guard, &["start", &b, "--", "exit=9"]);
        assert_eq!(said(&guard, &["wait", "--any", &a, &b]), format!("{b} 9\n"));
        let json = said(&guard, &["wait", "--any", "--json", &a, &b]);
        assert_eq!(json, format!("{{\"id\":\"{b}\",\"ended\":{{\"exited\":9}},\"code\":9}}\n"));
        let late = stockade(&guard, &["wait", "--timeout", "0", &b, &a]);
        assert_eq!((late.code, late.stdout.as_str()), (124, "9\n"));
        assert_eq!(late.stderr, format!("stockade: {a} is still running after 0 s\n"));
        said(&guard, &["rm", "--force", &a, &b]);
    });
}

#[test]
fn wait_refuses_a_jail_that_was_not_started() {
    privileged!(guard, {
        let id = create(&guard, "idle");
        let refused = stockade(&guard, &["wait", &id]);
        assert_eq!(
            (refused.code, refused.stderr),
            (1, format!("stockade: jail '{id}' was not started; start it with `stockade start {id}`\n"))
        );
        said(&guard, &["rm", &id]);
    });
}

#[test]
fn a_log_is_followed_through_its_rotations_to_its_end() {
    privileged!(guard, {
        let id = create(&guard, "log");
        let (mut logs, lines) = follow(&guard, &["logs", "-f", &id]);
        // About 100 KB in bursts: each is well below the size of the log, and together they are far above it.
        let mut vmm = Vec::new();
        for _ in 0..50 {
            vmm.extend(vec!["clock"; 64]);
            vmm.push("sleep-ms=40");
        }
        vmm.push("last-words");
        said(&guard, &[&["start", &id, "--log-size", "64K", "--"], &vmm[..]].concat());
        let printed: Vec<String> = lines.lines().map(Result::unwrap).collect();
        assert_eq!(logs.wait().unwrap().code(), Some(0));
        assert_eq!(printed.last().unwrap(), "stockade-probe: unknown action 'last-words'");
        assert!(printed.len() > 1_000, "far more than the log holds: {}", printed.len());
        let times: Vec<u64> = printed[..printed.len() - 1]
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["monotonic_ns"].as_u64().unwrap())
            .collect();
        assert!(times.is_sorted(), "in order, and whole lines");
        let end = said(&guard, &["logs", "-n", "2", &id]);
        assert_eq!(end.lines().map(str::to_owned).collect::<Vec<_>>(), printed[printed.len() - 2..]);
        assert_eq!(said(&guard, &["logs", "-n", "1", "--follow", &id]).lines().count(), 1, "it is complete");
        said(&guard, &["rm", &id]);
    });
}

#[test]
fn logs_follow_ends_when_an_unstarted_jail_is_removed() {
    privileged!(guard, {
        let id = create(&guard, "never");
        let (mut logs, mut lines) = follow(&guard, &["logs", "-f", &id]);
        said(&guard, &["rm", &id]);
        assert_eq!(line(&mut lines), "");
        assert!(logs.wait().unwrap().code().is_some());
    });
}

#[test]
fn ctrl_z_stops_the_command_and_not_the_vmm() {
    privileged!(guard, {
        let id = guard.named("stopped");
        let mut run = run(&guard, &id, &["sleep-ms=300", "exit=6"]);
        said(&guard, &["events", "--all", "--until", "started", "--timeout", "60", &id]);
        send(&run, Signal::STOP);
        assert!(
            said(&guard, &["events", "--all", "--until", "exited", "--timeout", "60", &id])
                .contains("exit code 6")
        );
        let listed = said(&guard, &["ps"]);
        assert!(listed.contains("abandoned"), "the jail is removed once the command goes on");
        assert!(listed.contains(" 6 "), "the exit code of the zombie: {listed}");
        send(&run, Signal::CONT);
        assert_eq!(run.wait().unwrap().code(), Some(6));
        assert!(!guard.state().exists());
    });
}
