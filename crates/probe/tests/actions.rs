//! Tests of the probe's actions.

#![allow(clippy::unwrap_used)]

mod common;

use common::{PROBE, Running, TestRoot, line_of, lines, parse, probe, stat_field};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The processes that a probe spawned. Dropping it kills them.
struct Spawned(Vec<i64>);

impl Spawned {
    fn from(line: &Value) -> Self {
        Self(line["spawned"].as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap()).collect())
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill_process(pid_of(*pid), Signal::KILL);
        }
    }
}

fn pid_of(number: i64) -> Pid {
    Pid::from_raw(number.try_into().unwrap()).unwrap()
}

fn monotonic_ns(line: &Value) -> u64 {
    line["monotonic_ns"].as_u64().unwrap()
}

#[test]
fn no_arguments_do_nothing_and_succeed() {
    let output = probe(&[]);
    assert_eq!((output.status.code(), output.stdout.len(), output.stderr.len()), (Some(0), 0, 0));
}

#[test]
fn exit_ends_the_probe_with_its_code() {
    for code in [0, 1, 77, 255] {
        let output = probe(&[&format!("exit={code}"), "clock"]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0));
    }
}

#[test]
fn an_unknown_action_is_named_after_earlier_ones_ran() {
    let output = probe(&["clock", "dance", "exit=5"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "stockade-probe: unknown action 'dance'\n");
    assert_eq!(parse(&output.stdout).len(), 1);
}

#[test]
fn an_action_with_an_invalid_number_is_unknown() {
    let output = probe(&["exit=many"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "stockade-probe: unknown action 'exit=many'\n");
}

#[test]
fn flags_are_skipped_with_their_values() {
    let arguments = ["--id", "exit=3", "--start-time-us", "exit=4", "--", "exit=5"];
    assert_eq!(probe(&arguments).status.code(), Some(5));
    assert_eq!(probe(&["--id"]).status.code(), Some(0));
}

#[test]
fn args_prints_all_arguments_with_the_programs_name() {
    let expected = json!({ "args": [PROBE, "--id", "x", "args"] });
    assert_eq!(lines(&["--id", "x", "args"]), [expected]);
}

#[test]
fn limits_prints_the_probes_limits() {
    let script = r#"ulimit -n 64; ulimit -Sf 2; ulimit -Sn 32; exec "$0" limits"#;
    let line = line_of(Command::new("sh").args(["-c", script, PROBE]));
    assert_eq!(line["limits"]["no-file"], json!([32, 64]));
    assert_eq!(line["limits"]["fsize"][0], json!(1024));
}

#[test]
fn an_unlimited_resource_is_null() {
    if line_of(Command::new(PROBE).arg("limits"))["limits"]["fsize"][1] != Value::Null {
        return testkit::skip("an_unlimited_resource_is_null", "a process without a limit on file sizes");
    }
    let line = line_of(Command::new("sh").args(["-c", r#"ulimit -f unlimited; exec "$0" limits"#, PROBE]));
    assert_eq!(line["limits"]["fsize"], json!([null, null]));
}

#[test]
fn clock_prints_the_monotonic_time() {
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        u64::try_from(time.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap()
    };
    let before = now();
    let printed = monotonic_ns(&lines(&["clock"])[0]);
    assert!((before..=now()).contains(&printed), "{before} {printed}");
}

#[test]
fn sleep_ms_takes_its_time() {
    let lines = lines(&["clock", "sleep-ms=60", "clock"]);
    assert!(monotonic_ns(&lines[1]) - monotonic_ns(&lines[0]) >= 60_000_000);
}

#[test]
fn hold_waits_for_one_byte_each() {
    let mut running = Running::start(&["clock", "hold", "hold", "exit=9"]);
    running.next_line();
    let mut stdin = running.child.stdin.take().unwrap();
    stdin.write_all(b"a").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(running.child.try_wait().unwrap(), None, "the second hold did not wait");
    stdin.write_all(b"b").unwrap();
    assert_eq!(running.child.wait().unwrap().code(), Some(9));
}

#[test]
fn hold_continues_at_the_end_of_the_input() {
    assert_eq!(probe(&["hold", "exit=9"]).status.code(), Some(9));
}

#[test]
fn a_signal_to_itself_has_its_default_effect() {
    for signal in [6, 9, 13, 15, 34] {
        let output = probe(&[&format!("signal={signal}"), "exit=1"]);
        assert_eq!(output.status.signal(), Some(signal));
    }
}

#[test]
fn a_previously_ignored_signal_has_its_default_effect() {
    assert_eq!(probe(&["ignore=15", "signal=15"]).status.signal(), Some(15));
}

#[test]
fn an_ignored_signal_does_not_end_the_probe() {
    let mut running = Running::start(&["ignore=15", "clock", "hold", "exit=5"]);
    running.next_line();
    kill_process(Pid::from_child(&running.child), Signal::TERM).unwrap();
    running.child.stdin.take().unwrap().write_all(b"x").unwrap();
    assert_eq!(running.child.wait().unwrap().code(), Some(5));
}

#[test]
fn an_invalid_signal_is_misuse() {
    for argument in ["signal=0", "signal=65", "ignore=9", "ignore=-1"] {
        let output = probe(&[argument, "exit=5"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{argument}");
        assert_eq!(error, format!("stockade-probe: {argument}: Invalid argument (os error 22)\n"));
    }
}

#[test]
fn sleep_ends_only_with_a_signal_and_uses_no_cpu() {
    let mut running = Running::start(&["clock", "sleep"]);
    running.next_line();
    std::thread::sleep(Duration::from_millis(50));
    assert!(running.status_field("State").starts_with('S'), "{}", running.status_field("State"));
    kill_process(Pid::from_child(&running.child), Signal::TERM).unwrap();
    assert_eq!(running.child.wait().unwrap().signal(), Some(15));
}

#[test]
fn spawned_processes_are_children_that_outlive_the_probe() {
    let mut running = Running::start(&["spawn=2", "hold"]);
    let spawned = Spawned::from(&running.next_line());
    assert_eq!(spawned.0.len(), 2);
    for pid in &spawned.0 {
        assert_eq!(stat_field(*pid, 4), running.child.id().to_string(), "parent of {pid}");
    }
    drop(running.child.stdin.take());
    assert!(running.child.wait().unwrap().success());
    for pid in &spawned.0 {
        assert_ne!(stat_field(*pid, 3), "Z");
    }
}

#[test]
fn daemons_have_their_own_session_and_no_parent() {
    let mut running = Running::start(&["daemon=2", "hold"]);
    let spawned = Spawned::from(&running.next_line());
    assert_eq!(spawned.0.len(), 2);
    let session = stat_field(running.child.id().into(), 6);
    for pid in &spawned.0 {
        assert_ne!(stat_field(*pid, 6), session);
        // Neither the probe nor the intermediate process, which led the session and has exited.
        let parent = stat_field(*pid, 4);
        assert_ne!(parent, running.child.id().to_string());
        assert_ne!(parent, stat_field(*pid, 6));
    }
}

#[test]
fn a_file_is_overwritten_and_read_back() {
    let root = TestRoot::new();
    let file = root.path().join("file");
    fs::write(&file, "something much longer").unwrap();
    let name = file.display();
    let lines = lines(&[&format!("write={name}=a=b\n"), &format!("read={name}")]);
    assert_eq!(lines, [json!({ "write": "ok" }), json!({ "read": "a=b\n" })]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "a=b\n");
}

#[test]
fn a_failed_file_action_reports_the_errno() {
    let lines = lines(&["write=/nowhere/at/all=x", "read=/nowhere/at/all", "write=/=x", "listen=/nowhere/s"]);
    let expected = [
        json!({ "write": "ENOENT" }),
        json!({ "read_error": "ENOENT" }),
        json!({ "write": "EISDIR" }),
        json!({ "listen": "ENOENT" }),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn an_endless_file_is_not_read_forever() {
    let line = &lines(&["read=/dev/zero"])[0];
    assert!(line["read_error"].is_string(), "{line}");
}

#[test]
fn the_probe_listens_on_a_socket_while_it_continues() {
    let root = TestRoot::new();
    let socket = root.path().join("socket");
    let mut running = Running::start(&[&format!("listen={}", socket.display()), "hold"]);
    assert_eq!(running.next_line(), json!({ "listen": "ok" }));
    UnixStream::connect(&socket).unwrap();
}

#[test]
fn the_guest_halts() {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return testkit::skip("the_guest_halts", "/dev/kvm, and the right to open it");
    }
    assert_eq!(lines(&["guest"]), [json!({ "kvm_guest": "hlt" })]);
}

#[test]
fn a_guest_without_kvm_reports_the_missing_device() {
    if !common::is_root("a_guest_without_kvm_reports_the_missing_device") {
        return;
    }
    let line = line_of(&mut TestRoot::new().chroot(common::NOBODY, &["guest"]));
    let expected = if cfg!(target_arch = "x86_64") {
        "open /dev/kvm: No such file or directory (os error 2)"
    } else {
        "the guest is for x86-64"
    };
    assert_eq!(line, json!({ "kvm_guest": expected }));
}

#[test]
fn a_full_or_closed_output_does_not_stop_the_probe() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(PROBE).args(["clock", "report", "exit=7"]).stdout(full).output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(7), ""));

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(PROBE).args(["clock", "clock", "exit=7"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(7), ""));
}

#[test]
fn closed_streams_without_dev_null_do_not_stop_the_probe() {
    if !common::is_root("closed_streams_without_dev_null_do_not_stop_the_probe") {
        return;
    }
    let root = TestRoot::new();
    let script = r#"exec "$@" <&- >&- 2>&-"#;
    let chroot = root.chroot(common::NOBODY, &["report", "hold", "exit=7"]);
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(chroot.get_program()).args(chroot.get_args());
    let status = command.stdin(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(7), "{status}");
}

#[test]
fn every_action_prints_one_line_in_order() {
    let lines = lines(&["args", "clock", "limits", "spawn=0", "report", "guest"]);
    assert_eq!(lines.len(), 6);
    for (line, key) in lines.iter().zip(["args", "monotonic_ns", "limits", "spawned", "escapes", "kvm_guest"])
    {
        assert!(line.get(key).is_some(), "no {key} in {line}");
    }
}
