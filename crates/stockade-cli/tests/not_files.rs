//! Where a file of the state directory is expected, something else lies: no command hangs on it, is misled by it, or
//! reads it without limit.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use testkit::{Guard, Output, privileged, program, run_with, said, stockade};

/// The kinds of objects that are not readable files of a jail.
const KINDS: [&str; 7] = ["FIFO", "socket", "link", "dangling link", "device", "directory", "huge file"];

/// The files of an entry in the state directory.
const FILES: [&str; 5] = ["receipt.json", "log", "log.1", "ended", "lost"];

/// The commands that read them, with ID for the jail's id.
const READERS: [&str; 14] = [
    "ps",
    "ps --json",
    "inspect ID",
    "inspect --json ID",
    "inspect --tree ID",
    "logs ID",
    "logs -n 3 ID",
    "wait --timeout 1 ID",
    "events --all --timeout 1",
    "top --once",
    "gc --dry-run",
    "doctor",
    "audit ID",
    "stop ID",
];

/// The most memory that a reader may use, in kilobytes. A file without end would need more.
const MEMORY: u64 = 2 << 20;

fn put(kind: &str, at: &Path) {
    let other = at.with_file_name("elsewhere");
    match kind {
        "FIFO" => mknodat(CWD, at, FileType::Fifo, Mode::RUSR, 0).unwrap(),
        "socket" => drop(UnixListener::bind(at).unwrap()),
        "link" => std::os::unix::fs::symlink(&other, at).unwrap(),
        "dangling link" => std::os::unix::fs::symlink("/not/there", at).unwrap(),
        "device" => mknodat(CWD, at, FileType::CharacterDevice, Mode::RUSR, makedev(1, 5)).unwrap(),
        "directory" => fs::create_dir(at).unwrap(),
        "huge file" => fs::File::create(at).unwrap().set_len(1 << 34).unwrap(),
        other => panic!("{other}"),
    }
}

fn take_away(at: &Path) {
    if at.is_dir() && !at.is_symlink() { fs::remove_dir(at).unwrap() } else { fs::remove_file(at).unwrap() }
}

/// Runs a command with limited memory and output; it is killed after a time that no command needs.
fn bounded(guard: &Guard, line: &str) -> Output {
    let script = format!(
        "ulimit -v {MEMORY}; timeout -s KILL 60 \"$0\" {line} | head -c 2000000; exit ${{PIPESTATUS[0]}}"
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]).arg(program("stockade")).env("STOCKADE_STATE_DIR", guard.state());
    run_with(command.stdin(Stdio::null()))
}

/// A jail whose VMM wrote a line and exited with 3.
fn ended_jail(guard: &Guard) -> String {
    let id = guard.named("vm");
    let (base, probe) = (guard.base().display().to_string(), program("stockade-probe").display().to_string());
    said(guard, &["create", "--id", &id, "--exec-file", &probe, "--chroot-base-dir", &base]);
    said(guard, &["start", &id, "--", "clock", "exit=3"]);
    assert_eq!(said(guard, &["wait", &id]), "3\n");
    id
}

#[test]
fn no_command_hangs_on_what_is_not_a_file() {
    privileged!(guard, {
        let id = ended_jail(&guard);
        let entry = guard.state().join(&id);
        let saved = guard.directory().join("saved");
        for file in FILES {
            let at = entry.join(file);
            let there = at.exists();
            for kind in KINDS {
                if there {
                    fs::rename(&at, &saved).unwrap();
                }
                // What a symbolic link would show of the jail.
                fs::write(at.with_file_name("elsewhere"), "exited 237\n").unwrap();
                put(kind, &at);
                // Some take a second by themselves.
                let waits = |reader: &str| reader.contains("--timeout 1") || reader.starts_with("top");
                for reader in READERS.iter().filter(|reader| kind == "FIFO" || !waits(reader)) {
                    let output = bounded(&guard, &reader.replace("ID", &id));
                    let all = format!("{kind} as {file}, {reader}: {} {}", output.code, output.stderr);
                    assert_ne!(output.code, 137, "it hangs: {all}");
                    assert!([0, 1, 124, 141].contains(&output.code), "{all}");
                    assert!(output.stdout.len() < 1_000_000 || reader.starts_with("logs"), "{all}");
                    assert!(output.stderr.len() < 10_000 && !output.stderr.contains("panicked"), "{all}");
                    if reader.starts_with("ps") || reader.starts_with("wait") {
                        let mut words = output.stdout.split(|letter: char| !letter.is_alphanumeric());
                        assert!(!words.any(|word| word == "237"), "{all}: {}", output.stdout);
                    }
                }
                take_away(&at);
                fs::remove_file(at.with_file_name("elsewhere")).unwrap();
                if there {
                    fs::rename(&saved, &at).unwrap();
                }
            }
        }
        said(&guard, &["rm", &id]);
    });
}

#[test]
fn a_start_finds_a_fifo_in_the_place_of_its_files() {
    privileged!(guard, {
        for file in ["log", "log.1", "ended.new", "ended", "lost", "receipt.json.new"] {
            let id = guard.named("new");
            let (base, probe) =
                (guard.base().display().to_string(), program("stockade-probe").display().to_string());
            said(&guard, &["create", "--id", &id, "--exec-file", &probe, "--chroot-base-dir", &base]);
            let at = guard.state().join(&id).join(file);
            put("FIFO", &at);
            let start = bounded(&guard, &format!("start {id} -- clock exit=3"));
            assert!([0, 1].contains(&start.code), "{file}: {} {}", start.code, start.stderr);
            if start.code == 0 {
                assert_eq!(bounded(&guard, &format!("wait {id}")).stdout, "3\n", "{file}");
            }
            let rm = bounded(&guard, &format!("rm --force {id}"));
            assert_eq!((rm.code, rm.stderr.as_str()), (0, ""), "{file}");
        }
        assert!(!guard.state().exists());
    });
}

#[test]
fn doctor_names_some_of_many_strays_and_counts_all() {
    privileged!(guard, {
        let state = guard.state();
        fs::create_dir_all(&state).unwrap();
        (0..3_000).for_each(|number| fs::write(state.join(format!("stray-{number:04}")), "").unwrap());
        let doctor = stockade(&guard, &["doctor"]);
        let line = doctor.stdout.lines().find(|line| line.contains("strays")).unwrap().to_owned();
        assert!(line.contains("stray-0000") && line.ends_with(" and 2990 more"), "{line}");
        assert!(!line.contains("stray-0010"), "{line}");
        fs::remove_dir_all(&state).unwrap();
    });
}
