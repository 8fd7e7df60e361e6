//! Section 2, step 14: a pid namespace.

use std::fs;
use std::process::Stdio;

use crate::ground::{
    Ground, as_session_leader, conforms, kill, ours_or_original, proc, refuses, session, status,
};

/// Starts a jail in a pid namespace and returns the VMM's pid outside once the jailer is done.
fn started(ground: &Ground<'_>, flags: &[&str]) -> i32 {
    let mut command = ground.command(flags, &["sleep"]);
    // No pipes: the VMM would hold them open.
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    let pid = ground.told_pid();
    ground.becomes_vmm(pid);
    pid
}

#[test]
fn the_vmm_is_the_first_of_its_namespace() {
    conforms!(ground, {
        let pid = started(&ground, &["--new-pid-ns"]);
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
fn the_vmm_sees_itself_as_1_and_no_parent() {
    conforms!(ground, {
        let report = ground.report(&["--new-pid-ns"]);
        assert_eq!((&report["pid"], &report["ppid"]), (&1.into(), &0.into()));
    });
}

#[test]
fn both_flags_together_make_a_daemon_in_a_namespace() {
    conforms!(ground, {
        let pid = started(&ground, &["--daemonize", "--new-pid-ns"]);
        assert_eq!(status(pid, "NStgid").len(), 2);
        assert!(fs::read_link(format!("/proc/{pid}/fd/1")).unwrap().ends_with("null"));
        assert_ne!(session(pid), session(std::process::id().try_into().unwrap()));
        kill(pid);
    });
}

#[test]
fn the_child_of_a_sessions_leader_outlives_it() {
    conforms!(ground, {
        let mut command = as_session_leader(&ground.command(&["--new-pid-ns"], &["sleep"]));
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
        assert_eq!(status.code(), Some(0));
        let pid = wait_for_told(&ground);
        ground.becomes_vmm(pid);
        assert_eq!(session(pid), pid, "a session of its own");
        assert!(proc(pid, "cmdline").starts_with(&ground.in_jail()));
        kill(pid);
    });
}

fn wait_for_told(ground: &Ground<'_>) -> i32 {
    crate::ground::wait_for("the pid file", || fs::read_to_string(ground.pid_file()).ok()?.parse().ok())
}

#[test]
fn without_a_leader_the_session_is_kept() {
    conforms!(ground, {
        let pid = started(&ground, &["--new-pid-ns"]);
        assert_eq!(session(pid), session(std::process::id().try_into().unwrap()));
        kill(pid);
    });
}

#[test]
fn a_failure_in_the_namespace_reaches_the_caller() {
    conforms!(ground = Ground::with_script, {
        for flags in [&["--new-pid-ns"][..], &["--new-pid-ns", "--daemonize"]] {
            let output = ground.run(flags, &[]);
            if ours_or_original(true, false) {
                refuses(&output, "Failed to exec into Firecracker: No such file or directory (os error 2)");
            } else {
                assert_eq!(output.code, 0);
            }
            fs::remove_dir_all(ground.root()).unwrap();
        }
    });
}

#[test]
fn the_pid_is_told_before_the_vmm_runs() {
    conforms!(ground, {
        // The VMM reads the file first of all; the original writes it when the child may be running already.
        let file = format!("read={}.pid", ground.in_jail());
        if ours_or_original(true, false) {
            // It is root's, so the VMM can only ask whether it is there: it is, and closed to no one.
            let said = ground.said(&["--new-pid-ns"], &[&file]);
            assert!(said[0]["read"].as_str().unwrap().parse::<u32>().is_ok(), "{said:?}");
        }
    });
}
