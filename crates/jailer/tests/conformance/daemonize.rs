//! Section 2, step 13: in the background.

use std::fs;
use std::process::Stdio;

use crate::fixture::{
    Fixture, conforms, drop_in_or_firecracker, finds_no_interpreter, kill, session, status,
};

#[test]
fn the_jailer_exits_with_0_and_the_vmm_keeps_running() {
    conforms!(fixture, {
        let output = fixture.run(&["--daemonize"], &["sleep"]);
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (0, "", ""), "{output:?}");
        let pid = fixture.written_pid();
        fixture.becomes_vmm(pid);
        // The test process is a child subreaper and inherits orphans.
        assert_eq!(status(pid, "PPid"), [std::process::id().to_string()]);
        kill(pid);
    });
}

#[test]
fn the_vmm_has_a_session_that_it_does_not_lead() {
    conforms!(fixture, {
        fixture.run(&["--daemonize"], &["sleep"]);
        let pid = fixture.written_pid();
        fixture.becomes_vmm(pid);
        assert_ne!(session(pid), pid);
        assert_ne!(session(pid), session(std::process::id().try_into().unwrap()));
        kill(pid);
    });
}

#[test]
fn the_vmms_streams_are_dev_null() {
    conforms!(fixture, {
        fixture.run(&["--daemonize"], &["sleep"]);
        let pid = fixture.written_pid();
        fixture.becomes_vmm(pid);
        for fd in 0..3 {
            let file = fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
            // The host's device. The jail has none, so the kernel prints no path from the jail's root.
            assert!(file.ends_with("dev/null") || file.ends_with("null"), "{}", file.display());
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
            let access = u32::from_str_radix(flags, 8).unwrap() & 3;
            assert_eq!(access, drop_in_or_firecracker(2, 0), "opened for reading and writing");
        }
        assert_eq!(fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(), 3);
        kill(pid);
    });
}

#[test]
fn a_failure_in_the_background_reaches_the_caller() {
    conforms!(fixture = Fixture::with_script, {
        let output = fixture.run(&["--daemonize"], &[]);
        if drop_in_or_firecracker(true, false) {
            finds_no_interpreter(&output, Fixture::INTERPRETER);
        } else {
            assert_eq!((output.code, output.stderr.as_str()), (0, ""));
            fixture.fails_in_the_background();
        }
    });
}

#[test]
fn the_vmm_gets_the_processor_time_of_every_process() {
    conforms!(fixture, {
        for flags in [&["--daemonize"][..], &["--new-pid-ns"], &["--daemonize", "--new-pid-ns"]] {
            let mut command = fixture.command(flags, &["sleep"]);
            // No pipes: the VMM of a pid namespace would hold them open.
            let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
            assert_eq!(status.code(), Some(0));
            let pid = fixture.written_pid();
            fixture.becomes_vmm(pid);
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
            kill(pid);
            fs::remove_dir_all(fixture.exec_dir()).unwrap();
            let arguments: Vec<&str> = line.split('\0').collect();
            let value = |name| {
                let at = arguments.iter().position(|argument| *argument == name).unwrap();
                arguments[at + 1].parse::<u64>().unwrap()
            };
            // The first process did nearly all of the work, and the last one executes the VMM.
            let (own, all) = (value("--start-time-cpu-us"), value("--parent-cpu-time-us"));
            assert!(own < all, "{flags:?}: {arguments:?}");
        }
    });
}
