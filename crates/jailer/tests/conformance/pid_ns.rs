//! Section 2, step 14: a pid namespace.

use std::fs;
use std::process::Stdio;

use crate::fixture::{
    Fixture, as_session_leader, conforms, drop_in_or_firecracker, finds_no_interpreter, kill, proc, session,
    status, wait_for,
};

/// Starts a jail in a pid namespace, waits until the jailer exits, and returns the VMM's pid outside the namespace.
fn started(fixture: &Fixture<'_>, flags: &[&str]) -> i32 {
    let mut command = fixture.command(flags, &["sleep"]);
    // No pipes: the VMM would hold them open.
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    let pid = fixture.written_pid();
    fixture.becomes_vmm(pid);
    pid
}

#[test]
fn the_vmm_is_the_first_process_of_its_namespace() {
    conforms!(fixture, {
        let pid = started(&fixture, &["--new-pid-ns"]);
        assert_eq!(status(pid, "NStgid"), [pid.to_string(), "1".to_owned()]);
        assert_eq!(status(pid, "PPid"), [std::process::id().to_string()], "an orphan");
        assert_ne!(
            fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap(),
            fs::read_link("/proc/self/ns/pid").unwrap()
        );
        kill(pid);
    });
}

#[test]
fn the_vmm_has_pid_1_and_no_parent() {
    conforms!(fixture, {
        let report = fixture.report(&["--new-pid-ns"]);
        assert_eq!((&report["pid"], &report["ppid"]), (&1.into(), &0.into()));
    });
}

#[test]
fn both_flags_together_start_a_daemon_in_a_namespace() {
    conforms!(fixture, {
        let pid = started(&fixture, &["--daemonize", "--new-pid-ns"]);
        assert_eq!(status(pid, "NStgid").len(), 2);
        assert!(fs::read_link(format!("/proc/{pid}/fd/1")).unwrap().ends_with("null"));
        assert_ne!(session(pid), session(std::process::id().try_into().unwrap()));
        kill(pid);
    });
}

#[test]
fn the_child_of_a_session_leader_outlives_it() {
    conforms!(fixture, {
        let mut command = as_session_leader(&fixture.command(&["--new-pid-ns"], &["sleep"]));
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(0));
        // `setsid` may exit before the jailer.
        let pid =
            wait_for("the pid file", || fs::read_to_string(fixture.pid_file()).ok()?.parse::<i32>().ok());
        fixture.becomes_vmm(pid);
        assert_eq!(session(pid), pid, "the child leads its own session");
        assert!(proc(pid, "cmdline").starts_with(&fixture.in_jail()));
        kill(pid);
    });
}

#[test]
fn the_child_of_no_session_leader_keeps_the_session() {
    conforms!(fixture, {
        let pid = started(&fixture, &["--new-pid-ns"]);
        assert_eq!(session(pid), session(std::process::id().try_into().unwrap()));
        kill(pid);
    });
}

#[test]
fn a_failure_in_the_namespace_reaches_the_caller() {
    conforms!(fixture = Fixture::with_script, {
        for flags in [&["--new-pid-ns"][..], &["--new-pid-ns", "--daemonize"]] {
            let output = fixture.run(flags, &[]);
            if drop_in_or_firecracker(true, false) {
                finds_no_interpreter(&output, Fixture::INTERPRETER);
            } else {
                assert_eq!(output.code, 0);
                fixture.fails_in_the_background();
            }
            fs::remove_dir_all(fixture.root()).unwrap();
        }
    });
}

#[test]
fn the_pid_file_exists_before_the_vmm_runs() {
    conforms!(fixture, {
        // The VMM reads the file first. Firecracker's jailer may write it after the VMM's start.
        let file = format!("read={}.pid", fixture.in_jail());
        if drop_in_or_firecracker(true, false) {
            let lines = fixture.json_lines(&["--new-pid-ns"], &[&file]);
            assert!(lines[0]["read"].as_str().unwrap().parse::<u32>().is_ok(), "{lines:?}");
        }
    });
}
