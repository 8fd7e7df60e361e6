//! Compares the report with observations from outside.

#![allow(clippy::unwrap_used)]

mod common;

use common::{NOBODY, PROBE, Running, TestRoot, is_root, line_of};
use rustix::fs::{CWD, FileType, Mode};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

fn report() -> Value {
    line_of(Command::new(PROBE).arg("report"))
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|entry| entry.as_str().unwrap()).collect()
}

fn escape<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["escapes"].as_array().unwrap().iter().find(|escape| escape["name"] == name).unwrap()
}

fn assert_all_held(report: &Value) {
    let escapes = report["escapes"].as_array().unwrap();
    assert_eq!(escapes.len(), 10);
    for escape in escapes {
        assert_eq!(escape["held"], true, "{escape}");
        assert_ne!(escape["errno"], 0, "{escape}");
        assert!(escape["result"].as_str().unwrap().starts_with('E'), "{escape}");
    }
}

#[test]
fn the_report_has_all_its_keys() {
    let report = report();
    let keys: BTreeSet<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = "arch capabilities cwd descriptors devices egid environment escapes euid gid groups hostname \
                    inherited kernel mounts network no_new_privs pid ppid root_entries seccomp sid signals uid umask \
                    writable";
    let expected: BTreeSet<&str> = expected.split_whitespace().collect();
    assert_eq!(keys, expected);
}

#[test]
fn the_report_agrees_with_proc_about_the_process() {
    let script = r#"trap '' PIPE USR1; umask 027; cd /usr; exec "$0" report hold"#;
    let mut running = Running::start_command(Command::new("sh").args(["-c", script, PROBE]));
    let report = running.next_line();
    let field = |name: &str| running.status_field(name);
    let hexadecimal = |name: &str| format!("{:#x}", u64::from_str_radix(&field(name), 16).unwrap());

    assert_eq!(report["pid"], running.child.id());
    assert_eq!(report["ppid"].to_string(), field("PPid"));
    assert_eq!(report["sid"].to_string(), common::stat_field(running.child.id().into(), 6));
    let ids = |real: &str, effective: &str| format!("{}\t{}", report[real], report[effective]);
    assert!(field("Uid").starts_with(&ids("uid", "euid")));
    assert!(field("Gid").starts_with(&ids("gid", "egid")));
    let groups: Vec<String> = report["groups"].as_array().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(groups.join(" "), field("Groups"));
    assert_eq!(report["umask"], "0027");
    assert_eq!(report["umask"], field("Umask"));
    assert_eq!(report["cwd"], "/usr");
    assert_eq!(report["no_new_privs"], field("NoNewPrivs") == "1");
    assert_eq!(report["seccomp"].to_string(), field("Seccomp"));
    let sets = [
        ("effective", "CapEff"),
        ("permitted", "CapPrm"),
        ("inheritable", "CapInh"),
        ("bounding", "CapBnd"),
        ("ambient", "CapAmb"),
    ];
    for (name, in_proc) in sets {
        assert_eq!(report["capabilities"][name], hexadecimal(in_proc), "{name}");
    }
    let mask = |name: &str| {
        let numbers = report["signals"][name].as_array().unwrap();
        numbers.iter().fold(0_u64, |mask, number| mask | 1 << (number.as_u64().unwrap() - 1))
    };
    assert_eq!(format!("{:#x}", mask("ignored")), hexadecimal("SigIgn"));
    assert_eq!(format!("{:#x}", mask("blocked")), hexadecimal("SigBlk"));
}

#[test]
fn sigpipe_ignored_by_rusts_runtime_is_not_reported() {
    // std's `Command` resets SIGPIPE to its default action in the child.
    assert!(!report()["signals"]["ignored"].as_array().unwrap().contains(&json!(13)));
    let ignored = line_of(Command::new(PROBE).args(["ignore=13", "report"]));
    assert!(ignored["signals"]["ignored"].as_array().unwrap().contains(&json!(13)));
}

#[test]
fn the_environment_is_reported_in_full() {
    let report = line_of(Command::new(PROBE).arg("report").env_clear().env("A", "b=c").env("EMPTY", ""));
    let environment: BTreeSet<&str> = strings(&report["environment"]).into_iter().collect();
    assert_eq!(environment, BTreeSet::from(["A=b=c", "EMPTY="]));
}

#[test]
fn the_report_agrees_with_proc_about_the_host() {
    let read = |path: &str| fs::read_to_string(path).unwrap().trim().to_owned();
    let report = report();
    assert_eq!(report["hostname"], read("/proc/sys/kernel/hostname"));
    assert_eq!(report["kernel"], read("/proc/sys/kernel/osrelease"));
    assert_eq!(report["arch"], std::env::consts::ARCH);
    assert!(strings(&report["network"]).contains(&"lo"), "{}", report["network"]);
    let proc = report["mounts"].as_array().unwrap().iter().find(|mount| mount["point"] == "/proc").unwrap();
    assert_eq!(proc["type"], "proc");
}

#[test]
fn devices_are_found_with_their_numbers() {
    let report = report();
    let devices = report["devices"].as_array().unwrap();
    let null = devices.iter().find(|device| device["path"] == "/dev/null").unwrap();
    assert_eq!([&null["kind"], &null["major"], &null["minor"]], [&json!("char"), &json!(1), &json!(3)]);
    let paths: Vec<&str> = devices.iter().map(|device| device["path"].as_str().unwrap()).collect();
    assert!(paths.is_sorted(), "{paths:?}");
}

/// Starts the probe with file descriptors 0, 1 and 2 and those that the shell code `open` opens.
fn descriptors_with(open: &str) -> Value {
    let script = format!(
        "for fd in /proc/self/fd/*; do n=${{fd##*/}}; [ $n -gt 2 ] && eval \"exec $n>&-\"; done; \
         {open}; exec \"$0\" report"
    );
    line_of(Command::new("bash").args(["-c", &script, PROBE]))["descriptors"].take()
}

#[test]
fn the_probe_opens_no_file_descriptors_itself() {
    assert_eq!(descriptors_with(":"), json!([0, 1, 2]));
}

#[test]
fn inherited_file_descriptors_are_found() {
    assert_eq!(descriptors_with("exec 7</ 33</"), json!([0, 1, 2, 7, 33]));
    assert_eq!(descriptors_with("exec 0<&-"), json!([1, 2]));
}

#[test]
fn all_attempts_but_path_lookups_fail_without_privileges() {
    if !is_root("all_attempts_but_path_lookups_fail_without_privileges") {
        return;
    }
    let root = TestRoot::new();
    let mut command = Command::new(root.probe());
    let report = line_of(command.arg("report").current_dir(root.path()).uid(NOBODY).gid(NOBODY));
    assert_eq!([&report["uid"], &report["euid"]], [&json!(NOBODY), &json!(NOBODY)]);
    let path_lookups = ["dot-dot", "host-path"];
    for escape in report["escapes"].as_array().unwrap() {
        if !path_lookups.contains(&escape["name"].as_str().unwrap()) {
            assert_eq!(escape["held"], true, "{escape}");
        }
    }
}

#[test]
fn all_attempts_fail_in_a_bare_jail_without_privileges() {
    if !is_root("all_attempts_fail_in_a_bare_jail_without_privileges") {
        return;
    }
    let report = line_of(&mut TestRoot::new().chroot(NOBODY, &["report"]));
    assert_all_held(&report);
    assert_eq!(report["environment"], json!([]));
    assert_eq!(report["root_entries"], json!(["stockade-probe"]));
    assert_eq!(report["cwd"], "/");
    assert_eq!(report["devices"], json!([]));
    assert_eq!(report["writable"], json!([]));
    assert_eq!(escape(&report, "chroot-again")["result"], "EPERM");
}

#[test]
fn the_report_describes_the_jails_devices_and_directories() {
    if !is_root("the_report_describes_the_jails_devices_and_directories") {
        return;
    }
    let root = TestRoot::new();
    let at = |name: &str| root.path().join(name);
    for directory in ["dev/net", "run/a/b/c", "tmp", "shut"] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    for owned in ["run", "run/a", "run/a/b", "run/a/b/c", "tmp"] {
        chown(at(owned), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let node = |name: &str, kind: FileType, numbers: (u32, u32), mode: u32| {
        let device = rustix::fs::makedev(numbers.0, numbers.1);
        rustix::fs::mknodat(CWD, at(name), kind, Mode::empty(), device).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    node("dev/net/tun", FileType::CharacterDevice, (10, 200), 0o600);
    chown(at("dev/net/tun"), Some(NOBODY), Some(77)).unwrap();
    node("dev/disk", FileType::BlockDevice, (300, 70000), 0o4640);

    let report = line_of(&mut root.chroot(NOBODY, &["report"]));
    let expected = json!([
        { "path": "/dev/disk", "kind": "block", "major": 300, "minor": 70000, "mode": "4640", "uid": 0, "gid": 0 },
        { "path": "/dev/net/tun", "kind": "char", "major": 10, "minor": 200, "mode": "0600", "uid": NOBODY, "gid": 77 },
    ]);
    assert_eq!(report["devices"], expected);
    assert_eq!(report["writable"], json!(["/run", "/run/a", "/run/a/b", "/tmp"]));
    // With a writable directory only the missing privilege stops these.
    for name in ["chroot-again", "make-disk-node", "mount-proc", "become-root", "raw-packets"] {
        assert_eq!(escape(&report, name)["result"], "EPERM", "{name}");
    }
    assert_all_held(&report);
    assert_eq!(fs::read_dir(at("tmp")).unwrap().count(), 0, "the attempts left files");
}

#[test]
fn an_unreadable_directory_of_devices_is_reported() {
    if !is_root("an_unreadable_directory_of_devices_is_reported") {
        return;
    }
    let root = TestRoot::new();
    fs::create_dir_all(root.path().join("dev/secret")).unwrap();
    fs::set_permissions(root.path().join("dev/secret"), fs::Permissions::from_mode(0o700)).unwrap();
    let report = line_of(&mut root.chroot(NOBODY, &["report"]));
    assert_eq!(report["devices"], json!([{ "path": "/dev/secret", "unknown": "EACCES" }]));
}

#[test]
fn successful_attempts_are_reported_as_not_held() {
    if !is_root("successful_attempts_are_reported_as_not_held") {
        return;
    }
    let root = TestRoot::new();
    let report = line_of(&mut root.chroot(0, &["report"]));
    for name in ["chroot-again", "become-root"] {
        let escape = escape(&report, name);
        assert_eq!(
            [&escape["result"], &escape["errno"], &escape["held"]],
            [&json!("SUCCEEDED"), &json!(0), &json!(false)]
        );
    }
    // A file that does not exist in the jail is no success, even for root.
    assert_eq!(escape(&report, "dot-dot")["result"], "ENOENT");
    let names: Vec<_> = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["stockade-probe"], "the attempts left files");
}

#[test]
fn successful_attempts_leave_nothing_on_the_host() {
    let report = report();
    let mark = format!(".stockade-probe-{}-", report["pid"]);
    for directory in ["/", "/dev", "/dev/shm", "/run", "/tmp", "/var/tmp"] {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        let left: Vec<_> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(&mark))
            .collect();
        assert_eq!(left, Vec::<String>::new(), "in {directory}");
    }
}

#[test]
fn attempts_that_could_not_run_do_not_count_as_held() {
    if !is_root("attempts_that_could_not_run_do_not_count_as_held") {
        return;
    }
    // RLIMIT_NPROC of 1 for a uid with this single process: it cannot fork.
    let root = TestRoot::new();
    let script = r#"ulimit -u 1; exec "$0" report"#;
    let mut command = Command::new("bash");
    let lonely = 2_000_000_000 + std::process::id();
    let report = line_of(command.args(["-c", script]).arg(root.probe()).uid(lonely).gid(lonely));
    for escape in report["escapes"].as_array().unwrap() {
        assert_eq!(escape["result"], "NOT TRIED: EAGAIN", "{escape}");
        assert_eq!((&escape["held"], &escape["tried"]), (&json!(false), &json!(false)), "{escape}");
    }
}

#[test]
fn the_root_mount_is_listed() {
    if !is_root("the_root_mount_is_listed") {
        return;
    }
    let root = TestRoot::new();
    let script = r#"mount -t tmpfs -o mode=755 the-jail "$1" && cp "$0" "$1/probe" && cd "$1" && mkdir old &&
        mount -t ramfs below old && mkdir old/older && pivot_root . old/older && exec /probe report"#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, PROBE]).arg(root.path());
    let report = line_of(&mut command);
    let mounts = report["mounts"].as_array().unwrap();
    let at = |point: &str| mounts.iter().filter(|mount| mount["point"] == point).collect::<Vec<_>>();
    assert_eq!(at("/"), [&json!({ "point": "/", "type": "tmpfs", "source": "the-jail" })]);
    assert_eq!(at("/old"), [&json!({ "point": "/old", "type": "ramfs", "source": "below" })]);
}

#[test]
fn process_1_of_a_namespace_targets_its_parent() {
    if !is_root("process_1_of_a_namespace_targets_its_parent") {
        return;
    }
    let report = line_of(Command::new("unshare").args(["--pid", "--fork", PROBE, "report"]));
    assert_eq!([&report["pid"], &report["ppid"], &report["sid"]], [&json!(1), &json!(0), &json!(0)]);
    for name in ["join-init-namespace", "trace-other"] {
        assert_eq!(escape(&report, name)["result"], "ESRCH", "{name}");
    }
}
