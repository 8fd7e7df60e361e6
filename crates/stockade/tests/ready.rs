//! Readiness of a VMM without a monitor.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Read;
use std::time::Duration;

use stockade::spec::JailPath;
use stockade::{Error, ExitStatus, Running, Streams};
use testkit::{Guard, privileged, probe_spec};

/// Longer than any expected event takes.
const LONG: Duration = Duration::from_mins(1);

fn launch(guard: &Guard, arguments: &[&str], streams: Streams) -> Running {
    let spec = probe_spec(guard, "vm", arguments);
    guard.store().create(&spec).unwrap().launch(streams).unwrap()
}

#[test]
fn wait_ready_reports_an_early_exit_and_leaves_the_output() {
    privileged!(guard, {
        let (mut from, to) = std::io::pipe().unwrap();
        let streams = Streams { stdout: Some(to.into()), ..Streams::default() };
        let mut running = launch(&guard, &["read=/no/kernel", "exit=148"], streams);
        let error = running.wait_ready(&JailPath::new("run/api.sock").unwrap(), LONG).unwrap_err();
        assert!(
            matches!(&error, Error::ExitedEarly { status: ExitStatus::Exited(148), last_lines, .. } if last_lines.is_empty()),
            "{error}"
        );
        let line =
            format!("the VMM of jail '{}' exited before it was ready: exit code 148", guard.named("vm"));
        assert_eq!(error.to_string(), line);
        let mut output = String::new();
        from.read_to_string(&mut output).unwrap();
        assert!(output.contains("ENOENT"), "{output}");
        assert_eq!(running.wait().unwrap(), ExitStatus::Exited(148), "the status is still available");
        assert!(running.teardown().unwrap().is_clean());
    });
}

#[test]
fn wait_ready_waits_for_the_socket() {
    privileged!(guard, {
        let mut running =
            launch(&guard, &["sleep-ms=50", "listen=/run/api.sock", "sleep"], Streams::default());
        running.wait_ready(&JailPath::new("run/api.sock").unwrap(), LONG).unwrap();
        assert!(running.receipt().root().join("run/api.sock").as_path().exists());
        assert!(running.teardown().unwrap().is_clean());
    });
}

#[test]
fn wait_ready_waits_for_the_sockets_directory() {
    privileged!(guard, {
        let socket = JailPath::new("a/b/api.sock").unwrap();
        let mut running =
            launch(&guard, &["sleep-ms=400", "listen=/a/b/api.sock", "sleep"], Streams::default());
        let (directory, owner) = (running.receipt().root().join("a/b"), running.receipt().spec.owner);
        let creating = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            std::fs::create_dir_all(&directory).unwrap();
            std::os::unix::fs::chown(&directory, Some(owner.uid), Some(owner.gid)).unwrap();
        });
        running.wait_ready(&socket, LONG).unwrap();
        creating.join().unwrap();
        assert!(running.teardown().unwrap().is_clean());
    });
}

#[test]
fn an_early_exit_is_reported_without_the_sockets_directory() {
    privileged!(guard, {
        let mut running = launch(&guard, &["listen=/a/b/api.sock", "exit=4"], Streams::default());
        let error = running.wait_ready(&JailPath::new("a/b/api.sock").unwrap(), LONG).unwrap_err();
        assert!(matches!(&error, Error::ExitedEarly { status: ExitStatus::Exited(4), .. }), "{error}");
        assert!(running.teardown().unwrap().is_clean());
    });
}
