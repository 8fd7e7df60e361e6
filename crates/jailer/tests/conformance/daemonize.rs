//! Section 2, step 13: in the background.

use std::fs;

use crate::ground::{Ground, conforms, kill, ours_or_original, refuses, session, status};

#[test]
fn the_jailer_is_done_with_0_and_the_vmm_lives_on() {
    conforms!(ground, {
        let output = ground.run(&["--daemonize"], &["sleep"]);
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (0, "", ""), "{output:?}");
        let pid = ground.told_pid();
        ground.becomes_vmm(pid);
        // This process takes in orphans, as init does elsewhere.
        assert_eq!(status(pid, "PPid"), [std::process::id().to_string()]);
        kill(pid);
    });
}

#[test]
fn the_vmm_has_a_session_that_it_does_not_lead() {
    conforms!(ground, {
        ground.run(&["--daemonize"], &["sleep"]);
        let pid = ground.told_pid();
        ground.becomes_vmm(pid);
        assert_ne!(session(pid), pid);
        assert_ne!(session(pid), session(std::process::id().try_into().unwrap()));
        kill(pid);
    });
}

#[test]
fn the_vmms_streams_are_dev_null() {
    conforms!(ground, {
        ground.run(&["--daemonize"], &["sleep"]);
        let pid = ground.told_pid();
        ground.becomes_vmm(pid);
        for fd in 0..3 {
            let file = fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
            // Of the host: there is none in the jail, so the kernel tells no path from its root.
            assert!(file.ends_with("dev/null") || file.ends_with("null"), "{}", file.display());
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
            let access = u32::from_str_radix(flags, 8).unwrap() & 3;
            assert_eq!(access, ours_or_original(2, 0), "for reading and writing");
        }
        assert_eq!(fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(), 3);
        kill(pid);
    });
}

#[test]
fn a_failure_in_the_background_reaches_the_caller() {
    conforms!(ground = Ground::with_script, {
        let output = ground.run(&["--daemonize"], &[]);
        if ours_or_original(true, false) {
            refuses(&output, "Failed to exec into Firecracker: No such file or directory (os error 2)");
        } else {
            assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        }
    });
}

#[test]
fn the_parents_processor_time_is_told() {
    conforms!(ground, {
        ground.run(&["--daemonize"], &["sleep"]);
        let pid = ground.told_pid();
        ground.becomes_vmm(pid);
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        kill(pid);
        let words: Vec<&str> = line.split('\0').collect();
        let at = words.iter().position(|word| *word == "--parent-cpu-time-us").unwrap();
        assert!(words[at + 1].parse::<u64>().unwrap() > 0, "{words:?}");
    });
}
