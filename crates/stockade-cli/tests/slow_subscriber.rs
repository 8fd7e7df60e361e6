//! A subscriber that is slower than the events.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::{Command, Stdio};

use testkit::{privileged, program, said, stockade};

#[test]
fn a_detached_jail_is_not_reported_as_abandoned() {
    privileged!(guard, {
        let said_last = guard.directory().join("events");
        let mut slow = Command::new("strace");
        // The process that created the jail has exited when the subscriber looks for it.
        slow.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=pidfd_open"]);
        slow.args(["-e", "inject=pidfd_open:delay_enter=100000"]).arg(program("stockade"));
        slow.args(["events", "--all", "--until", "removed"]).env("STOCKADE_STATE_DIR", guard.state());
        slow.stdin(Stdio::null()).stdout(std::fs::File::create(&said_last).unwrap());
        let mut slow = slow.spawn().unwrap();
        while !guard.state().exists() {
            std::thread::yield_now();
        }
        let (base, probe) =
            (guard.base().display().to_string(), program("stockade-probe").display().to_string());
        // The receipt names its owning process for a while, and the subscriber reads it then.
        let mut create = Command::new("strace");
        create.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=renameat"]);
        create.args(["-e", "inject=renameat:delay_exit=30000"]).arg(program("stockade"));
        create.args(["create", "--id", "vm", "--exec-file", &probe, "--chroot-base-dir", &base]);
        let created = testkit::run_with(create.env("STOCKADE_STATE_DIR", guard.state()));
        assert_eq!((created.code, created.stdout.as_str()), (0, "vm\n"), "{}", created.stderr);
        // The event is printed before the jail is removed.
        while !std::fs::read_to_string(&said_last).unwrap().contains("created") {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
        said(&guard, &["rm", "vm"]);
        assert!(slow.wait().unwrap().success());
        let printed = std::fs::read_to_string(&said_last).unwrap();
        let kinds: Vec<&str> = printed.lines().filter_map(|line| line.rsplit(' ').next()).collect();
        assert_eq!(kinds, ["created", "removed"], "{printed}");
        std::fs::remove_file(&said_last).unwrap();
        assert_eq!(stockade(&guard, &["ps", "-q"]).stdout, "");
    });
}
