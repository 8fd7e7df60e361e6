//! Section 2, step 16: the process that becomes the VMM.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use serde_json::json;

use crate::fixture::{
    Fixture, GID, UID, conforms, drop_in_or_firecracker, finds_no_interpreter, json_lines, no_text, panicked,
    refuses, session, status,
};

#[test]
fn the_callers_child_becomes_the_vmm() {
    conforms!(fixture, {
        let live = fixture.start(&[]);
        assert_eq!(fs::read_link(format!("/proc/{}/root", live.pid())).unwrap().as_os_str().len(), 1);
        assert_eq!(status(live.pid(), "Uid"), vec![UID.to_string(); 4]);
        assert_eq!(status(live.pid(), "PPid"), [std::process::id().to_string()]);
        assert_eq!(status(live.pid(), "Threads"), ["1"]);
        let myself = i32::try_from(std::process::id()).unwrap();
        assert_eq!(session(live.pid()), session(myself), "in the caller's session");
    });
}

#[test]
fn the_vmms_exit_status_is_the_jailers() {
    conforms!(fixture, {
        for (argument, code) in [("exit=0", 0), ("exit=7", 7), ("signal=9", 137)] {
            let output = fixture.run(&[], &[argument]);
            assert_eq!((output.code, output.stderr.as_str()), (code, ""), "{argument}");
            fs::remove_dir_all(fixture.root()).unwrap();
        }
    });
}

#[test]
fn the_vmm_runs_as_the_owner_with_no_other_group() {
    conforms!(fixture, {
        let report = fixture.report(&[]);
        for (field, id) in [("uid", UID), ("euid", UID), ("gid", GID), ("egid", GID)] {
            assert_eq!(report[field], id, "{field}");
        }
        assert_eq!(report["groups"], json!([]));
        assert_eq!(report["capabilities"]["effective"], "0x0");
        assert_eq!(report["capabilities"]["permitted"], "0x0");
    });
}

#[test]
fn environment_and_file_descriptors_do_not_reach_the_vmm() {
    conforms!(fixture, {
        // Low and high numbers without close-on-exec.
        let file = fs::File::open("/dev/null").unwrap();
        let held = [3, 50, 900].map(|least| rustix::io::fcntl_dupfd_cloexec(&file, least).unwrap());
        for fd in &held {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).unwrap();
        }
        let mut command = fixture.command(&[], &["report"]);
        let report = json_lines(&testkit::run_with(command.env("SECRET", "secret"))).remove(0);
        drop(held);
        assert_eq!(report["environment"], json!([]));
        assert_eq!(report["descriptors"], json!([0, 1, 2]));
    });
}

#[test]
fn closed_standard_streams_never_become_another_file() {
    conforms!(fixture, {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "exec \"$0\" \"$@\" 0<&- 2>&-"]).arg(crate::fixture::jailer());
        let output = testkit::run_with(shell.args(fixture.arguments(&[], &["report"])));
        let report = json_lines(&output).remove(0);
        assert_eq!(report["descriptors"], json!([0, 1, 2]));
    });
}

#[test]
fn the_standard_streams_are_the_callers() {
    conforms!(fixture, {
        let mut child = fixture
            .command(&[], &["hold", "clock", "nonsense"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"x").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.starts_with(b"{\"monotonic_ns\""));
        assert!(output.stderr.ends_with(b"unknown action 'nonsense'\n"));
    });
}

#[test]
fn the_vmm_is_in_the_root_with_default_signals() {
    conforms!(fixture, {
        let report = fixture.report(&[]);
        assert_eq!(report["cwd"], "/");
        assert_eq!(report["signals"]["blocked"], json!([]));
        let ignored = report["signals"]["ignored"].as_array().unwrap();
        // Signals that the caller ignores stay ignored, except SIGPIPE, which jailers ignore themselves. Signals from
        // 32 on belong to the C library.
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let callers = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        let callers = u64::from_str_radix(callers.trim(), 16).unwrap();
        for signal in ignored.iter().map(|signal| signal.as_u64().unwrap()).filter(|signal| *signal < 32) {
            assert!(signal != 13 && callers & (1 << (signal - 1)) != 0, "signal {signal} of {ignored:?}");
        }
    });
}

#[test]
fn firecrackers_arguments_precede_the_callers() {
    conforms!(fixture, {
        let before = monotonic_us();
        let arguments = fixture.json_lines(&[], &["args", "--x", "y", "--"]).remove(0);
        let after = monotonic_us();
        let arguments: Vec<&str> =
            arguments["args"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
        let [
            path,
            "--id",
            id,
            "--start-time-us",
            t,
            "--start-time-cpu-us",
            c,
            "--parent-cpu-time-us",
            p,
            rest @ ..,
        ] = &arguments[..]
        else {
            panic!("{arguments:?}")
        };
        assert_eq!((*path, *id), (fixture.in_jail().as_str(), "jail-1"));
        let (t, c, p): (u64, u64, u64) = (t.parse().unwrap(), c.parse().unwrap(), p.parse().unwrap());
        assert!((before..=after).contains(&t), "{before} {t} {after}");
        // This process has done all the work, so its own time counts as that of the jailer.
        assert!(c <= after - before && 0 < p && p <= c, "{c} {p}");
        assert_eq!(rest, ["args", "--x", "y", "--"]);
    });
}

fn monotonic_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1_000
}

#[test]
fn extra_arguments_may_be_other_than_utf8() {
    conforms!(fixture, {
        let mut arguments = fixture.arguments(&[], &["sleep"]);
        arguments.push(no_text());
        if !drop_in_or_firecracker(true, false) {
            panicked(&crate::fixture::run(&arguments));
            return;
        }
        let mut child = std::process::Command::new(crate::fixture::jailer()).args(arguments).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        fixture.becomes_vmm(pid);
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let last: OsString = no_text();
        assert!(line.ends_with(&[b"sleep\0", last.as_bytes(), b"\0"].concat()), "{line:?}");
    });
}

/// An ELF executable of this machine with nothing but the name of a dynamic loader.
fn executable_with_loader(loader: &[u8]) -> Vec<u8> {
    let machine: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    let length = loader.len() as u64 + 1;
    let ident = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // ET_EXEC, the machine, the version.
    let kind = [2_u16.to_le_bytes(), machine.to_le_bytes(), 1_u16.to_le_bytes(), [0, 0]].concat();
    // No entry, one program header at 64, no section header; flags; the sizes and counts of headers.
    let addresses = [0_u64, 64, 0].map(u64::to_le_bytes).concat();
    let sizes = [0_u16, 0, 64, 56, 1, 0, 0, 0].map(u16::to_le_bytes).concat();
    // PT_INTERP, readable, at 120.
    let segment = [3_u32, 4].map(u32::to_le_bytes).concat();
    let place = [120_u64, 0, 0, length, length, 1].map(u64::to_le_bytes).concat();
    [ident, kind, addresses, sizes, segment, place, loader.to_vec(), vec![0]].concat()
}

#[test]
fn a_dynamic_executable_is_reported_with_its_loader() {
    conforms!(fixture, {
        fs::remove_file(&fixture.exec).unwrap();
        fs::write(&fixture.exec, executable_with_loader(b"/lib64/loader.so.2")).unwrap();
        fs::set_permissions(&fixture.exec, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        finds_no_interpreter(&fixture.run(&[], &[]), "dynamic loader '/lib64/loader.so.2'");
    });
}

#[test]
fn an_executable_that_cannot_be_executed_is_reported() {
    conforms!(fixture = Fixture::with_script, {
        finds_no_interpreter(&fixture.run(&[], &[]), Fixture::INTERPRETER);
        fs::set_permissions(&fixture.exec, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        fixture.id = "other".to_owned();
        let text = "Failed to exec into Firecracker: Permission denied (os error 13)";
        refuses(&fixture.run(&[], &[]), text);
    });
}
