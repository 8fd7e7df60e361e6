//! `audit` reports the facts about a running jail, independent of its receipt.
#![allow(clippy::unwrap_used, missing_docs)]

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use testkit::{Guard, Output, command, give_capability, privileged, program, run_with, said, stockade};

fn create(guard: &Guard, name: &str, flags: &[&str]) -> String {
    let id = guard.named(name);
    let (base, probe) = (guard.base().display().to_string(), program("stockade-probe").display().to_string());
    let fixed = ["create", "--id", &id, "--exec-file", &probe, "--chroot-base-dir", &base];
    said(guard, &[&fixed[..], flags].concat());
    id
}

fn sleeper(guard: &Guard, name: &str, flags: &[&str]) -> String {
    let id = create(guard, name, flags);
    said(guard, &["start", &id, "--", "sleep"]);
    id
}

/// The grade of a check and its fact.
fn of(audit: &Value, check: &str) -> (String, String) {
    let findings = audit["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["check"] == check);
    let found = found.unwrap_or_else(|| panic!("no {check} in {audit}"));
    let text = |key: &str| found[key].as_str().unwrap().to_owned();
    (text("grade"), text("fact"))
}

#[test]
fn audit_compares_a_limited_jail_with_a_plain_one() {
    privileged!(guard, {
        let limits = ["--cgroup", "pids.max=30", "--parent-cgroup", guard.name()];
        let tight = sleeper(&guard, "tight", &[&["--new-pid-ns", "--new-net-ns"][..], &limits].concat());
        let plain = sleeper(&guard, "plain", &[]);
        let audit = |id: &str| -> Value {
            serde_json::from_str(&said(&guard, &["audit", "--probe", "--json", id])).unwrap()
        };
        let (of_tight, of_plain) = (audit(&tight), audit(&plain));
        for held in [&of_tight, &of_plain] {
            for check in [
                "owner",
                "groups",
                "capabilities",
                "mount-namespace",
                "root",
                "mounts",
                "descriptors",
                "environment",
                "set-id",
                "escape",
            ] {
                assert_eq!(of(held, check).0, "good", "{check}: {}", of(held, check).1);
            }
            assert_eq!((&held["ok"], &held["inside"]["uid"]), (&json!(true), &json!(1234)));
        }
        let landlock = of(&of_plain, "landlock").1;
        // Every jail has no_new_privs, so the kernel gives no hint that rules a domain out.
        assert!(landlock.starts_with("unknown: ") || landlock.starts_with("none: "), "{landlock}");
        let good = |fact: &str| ("good".to_owned(), fact.to_owned());
        assert_eq!(of(&of_tight, "pids-limit"), good("pids.max=30"));
        let cgroup = of(&of_tight, "cgroup").1;
        assert!(cgroup.contains(&format!("/{}/{tight} (", guard.name())), "{cgroup}");
        assert_eq!(of(&of_tight, "network-namespace"), good("its own"));
        assert_eq!(of(&of_tight, "inside-network"), good("lo"));
        assert_eq!(
            of_tight["facts"]["settings"],
            json!([{ "file": "pids.max", "asked": "30", "found": "30" }])
        );
        assert_eq!(of(&of_plain, "pids-limit").0, "warning");
        assert_eq!(of(&of_plain, "network-namespace").0, "warning");
        // A jail in a pid namespace of its own cannot reach the other.
        assert_eq!(of(&of_tight, "neighbours").0, "good");
        assert_eq!(of(&of_plain, "neighbours"), ("warning".into(), format!("jails with its uid: {tight}")));
        let output = stockade(&guard, &["audit", &tight, "--against", &plain]);
        assert_eq!(output.code, 1);
        let line = format!("{tight}: good     pids-limit         pids.max=30\n");
        assert!(output.stdout.contains(&line), "{}", output.stdout);
        assert!(!output.stdout.contains("capabilities"), "{}", output.stdout);
        let line = format!("{} audit {tight} --against {plain}", program("stockade").display());
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).env("STOCKADE_STATE_DIR", guard.state());
        let shown = run_with(script.env("TERM", "xterm").env_remove("NO_COLOR")).stdout;
        assert!(shown.contains(&format!("{tight}: \x1b[32mgood\x1b[0m     pids-limit ")), "{shown:?}");
        let output = stockade(&guard, &["audit", "--sarif", &tight, "--against", &plain]);
        let log: Value = serde_json::from_str(&output.stdout).unwrap();
        let results = log["runs"][0]["results"].as_array().unwrap();
        let of_pids = results.iter().filter(|result| result["ruleId"] == "pids-limit");
        let named: Vec<_> =
            of_pids.map(|result| &result["locations"][0]["logicalLocations"][0]["name"]).collect();
        assert_eq!((output.code, named), (1, vec![&json!(tight), &json!(plain)]));
        let alike = sleeper(&guard, "alike", &[&["--new-pid-ns", "--new-net-ns"][..], &limits].concat());
        assert_eq!(said(&guard, &["audit", &tight, "--against", &alike]), "");
        said(&guard, &["rm", "--force", &tight, &plain, &alike]);
    });
}

/// The fix of a finding.
fn fix<'a>(audit: &'a Value, check: &str) -> &'a str {
    let findings = audit["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["check"] == check).unwrap()["mend"].as_str().unwrap()
}

#[test]
fn the_advised_limit_is_accepted_and_found_in_force() {
    privileged!(guard, {
        let audit = |id: &str| -> Value {
            let audit = serde_json::from_str(&said(&guard, &["audit", "--json", id])).unwrap();
            said(&guard, &["rm", "--force", id]);
            audit
        };
        let plain = audit(&sleeper(&guard, "plain", &[]));
        let advised = fix(&plain, "memory-limit").strip_prefix("use --cgroup ").unwrap();
        let file = advised.strip_suffix("=BYTES").unwrap();
        let (asked, found) = (format!("{file}=64M"), format!("{file}=67108864"));
        let limits = ["--cgroup", &asked, "--parent-cgroup", guard.name()];
        let limited = audit(&sleeper(&guard, "limited", &limits));
        assert_eq!(of(&limited, "memory-limit"), ("good".to_owned(), found));
        let findings = limited["findings"].as_array().unwrap();
        assert!(!findings.iter().any(|finding| finding["check"] == "settings"), "{limited}");
    });
}

#[test]
fn a_set_uid_file_of_root_is_found_from_outside() {
    privileged!(guard, {
        let id = create(&guard, "loose", &["--uid", "4321", "--gid", "4321"]);
        let file = guard.file("su", "");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        let root = said(&guard, &["inspect", &id, "--json"]);
        let root: Value = serde_json::from_str(&root).unwrap();
        let root = PathBuf::from(root["paths"]["root"].as_str().unwrap());
        let su = root.join("su");
        std::fs::copy(&file, &su).unwrap();
        std::fs::set_permissions(&su, std::fs::Permissions::from_mode(0o4755)).unwrap();
        said(&guard, &["start", &id, "--", "sleep"]);
        let output = stockade(&guard, &["audit", "--json", &id]);
        assert_eq!((output.code, output.stderr.as_str()), (1, ""));
        let audit: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(of(&audit, "set-id"), ("broken".into(), "/su".into()));
        let sarif = stockade(&guard, &["audit", "--sarif", "-q", &id]);
        let log: Value = serde_json::from_str(&sarif.stdout).unwrap();
        let results = log["runs"][0]["results"].as_array().unwrap();
        let found = results.iter().find(|result| result["ruleId"] == "set-id").unwrap();
        assert_eq!((&found["level"], &found["kind"]), (&json!("error"), &json!("fail")));
        assert!(results.iter().all(|result| result["kind"] != "pass"), "quiet");
        let unknown = results.iter().filter(|result| result["kind"] == "open");
        assert!(unknown.into_iter().all(|result| result["level"] == "none"), "{results:?}");
        said(&guard, &["rm", "--force", &id]);
    });
}

#[test]
fn stdout_to_a_file_of_the_host_is_found() {
    privileged!(guard, {
        let id = guard.named("open");
        let (base, probe) =
            (guard.base().display().to_string(), program("stockade-probe").display().to_string());
        let words = ["run", "--id", &id, "--exec-file", &probe, "--chroot-base-dir", &base, "--", "hold"];
        let log = guard.file("log", "");
        let mut run = command(&guard, &words);
        run.stdin(std::process::Stdio::piped()).stdout(File::options().append(true).open(&log).unwrap());
        let mut run = run.spawn().unwrap();
        said(&guard, &["events", "--all", "--until", "started", &id]);
        let audit: Value = serde_json::from_str(&said(&guard, &["audit", "--json", &id])).unwrap();
        let fact = format!("file descriptor 1 leads to {}", log.display());
        assert_eq!(of(&audit, "descriptors"), ("warning".into(), fact));
        drop(run.stdin.take());
        assert!(run.wait().unwrap().success());
    });
}

#[test]
fn only_a_running_jail_is_audited() {
    privileged!(guard, {
        let refused = |id: &str, line: String| {
            let output = stockade(&guard, &["audit", id]);
            assert_eq!((output.code, output.stdout.as_str(), output.stderr), (1, "", line));
        };
        let none = guard.named("none");
        refused(&none, format!("stockade: no jail '{none}'; list the jails with `stockade ps`\n"));
        let id = create(&guard, "idle", &[]);
        refused(&id, format!("stockade: jail '{id}' is not running; see its state with `stockade ps`\n"));
        said(&guard, &["rm", &id]);
    });
}

/// The root of a jail on the host.
fn root_of(guard: &Guard, id: &str) -> PathBuf {
    let inspected: Value = serde_json::from_str(&said(guard, &["inspect", id, "--json"])).unwrap();
    PathBuf::from(inspected["paths"]["root"].as_str().unwrap())
}

/// The audit, started by another command.
fn audit_by(guard: &Guard, launcher: &[&str], arguments: &[&str]) -> (Output, Value) {
    let mut command = Command::new(launcher[0]);
    command.args(&launcher[1..]).arg(program("stockade")).args(["audit", "--json"]).args(arguments);
    let output = run_with(command.env("STOCKADE_STATE_DIR", guard.state()));
    let audit = serde_json::from_str(&output.stdout);
    let audit = audit.unwrap_or_else(|cause| panic!("{cause}: {} {}", output.stdout, output.stderr));
    (output, audit)
}

/// The checks of this grade.
fn graded<'a>(audit: &'a Value, grade: &str) -> Vec<&'a str> {
    let findings = audit["findings"].as_array().unwrap().iter();
    let found = findings.filter(|finding| finding["grade"] == grade);
    found.map(|finding| finding["check"].as_str().unwrap()).collect()
}

#[test]
fn odd_names_long_paths_and_capabilities_are_seen() {
    privileged!(guard, {
        let id = create(&guard, "odd", &[]);
        let root = root_of(&guard, &id);
        let odd = root.join(OsStr::from_bytes(b"odd-\xff"));
        std::fs::create_dir(&odd).unwrap();
        let set_uid = |file: &Path| {
            std::fs::write(file, "").unwrap();
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o4755)).unwrap();
        };
        set_uid(&odd.join("su"));
        let capable = odd.join("ping");
        std::fs::write(&capable, "").unwrap();
        give_capability(&capable);
        // Deeper than a path can name, and than a process may have files open.
        let name = "d".repeat(100);
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut deepest = rustix::fs::open(&root, flags, Mode::empty()).unwrap();
        for _ in 0..1500 {
            rustix::fs::mkdirat(&deepest, &name, Mode::RWXU).unwrap();
            deepest = rustix::fs::openat(&deepest, &name, flags, Mode::empty()).unwrap();
        }
        let file = rustix::fs::openat(&deepest, "su", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
        rustix::fs::fchmod(&file, Mode::SUID | Mode::RWXU).unwrap();
        drop((file, deepest));
        said(&guard, &["start", &id, "--", "sleep"]);
        let (output, audit) = audit_by(&guard, &["prlimit", "--nofile=64"], &[&id]);
        assert_eq!((output.code, output.stderr.as_str()), (1, ""));
        let (grade, fact) = of(&audit, "set-id");
        assert!(
            grade == "broken" && fact.contains("/odd-\\xff/su") && fact.contains("d/su"),
            "{grade} {fact}"
        );
        assert!(fact.len() < 2000, "{fact}");
        assert_eq!(of(&audit, "file-capabilities"), ("broken".into(), "/odd-\\xff/ping".into()));
        assert_eq!(graded(&audit, "broken"), ["set-id", "file-capabilities"]);
        assert_eq!(of(&audit, "devices").0, "good", "everything was seen");
        said(&guard, &["rm", "--force", &id]);
    });
}

#[test]
fn a_tree_beyond_the_bound_is_not_called_good() {
    privileged!(guard, {
        let id = create(&guard, "large", &[]);
        let root = root_of(&guard, &id);
        for number in 0..20_001 {
            std::fs::write(root.join(format!("f{number}")), "").unwrap();
        }
        said(&guard, &["start", &id, "--", "sleep"]);
        let (output, audit) = audit_by(&guard, &["env"], &[&id]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        for check in ["set-id", "file-capabilities", "sockets", "writable", "tree"] {
            assert_eq!(of(&audit, check).0, "unknown", "{check}");
        }
        assert!(of(&audit, "tree").1.contains("20000 entries"), "{audit}");
        said(&guard, &["rm", "--force", &id]);
    });
}

/// The checks that need a look at the VMM's files in `/proc`.
const OF_PROC: [&str; 5] = ["mount-namespace", "network-namespace", "pid-namespace", "root", "descriptors"];

#[test]
fn a_vmm_that_cannot_be_inspected_is_unknown() {
    privileged!(guard, {
        let id = sleeper(&guard, "unseen", &["--new-pid-ns", "--new-net-ns"]);
        let without_trace = ["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"];
        let in_user_namespace = ["unshare", "--user", "--map-root-user"];
        for launcher in [&without_trace[..], &in_user_namespace] {
            let (output, audit) = audit_by(&guard, launcher, &[&id]);
            assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{launcher:?}");
            assert_eq!(graded(&audit, "broken"), Vec::<&str>::new(), "{launcher:?}");
            for check in OF_PROC {
                let (grade, fact) = of(&audit, check);
                assert_eq!(grade, "unknown", "{launcher:?}, {check}: {fact}");
                assert!(fact.contains("permission denied"), "{launcher:?}, {check}: {fact}");
            }
            assert_eq!(audit["facts"]["shared_namespaces"], json!([]));
        }
        // The overflow ID stands for any.
        let (_, audit) = audit_by(&guard, &in_user_namespace, &[&id]);
        assert_eq!(of(&audit, "owner").0, "unknown", "{}", of(&audit, "owner").1);
        let (_, audit) = audit_by(&guard, &["env"], &[&id]);
        assert_eq!(graded(&audit, "unknown"), ["landlock"], "as root of the host");
        let quiet = said(&guard, &["audit", "--quiet", &id]);
        assert!(quiet.contains("\nunknown  landlock           unknown: "), "{quiet}");
        said(&guard, &["rm", "--force", &id]);
    });
}

#[test]
fn a_limit_that_cannot_be_read_is_unknown() {
    privileged!(guard, {
        let limits = ["--cgroup", "pids.max=30", "--parent-cgroup", guard.name()];
        let id = sleeper(&guard, "hidden", &limits);
        // Covers every hierarchy.
        let script = "mount -t tmpfs none /sys/fs/cgroup && exec \"$@\"";
        let (output, audit) = audit_by(&guard, &["unshare", "--mount", "sh", "-c", script, "sh"], &[&id]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        for check in ["pids-limit", "settings"] {
            let (grade, fact) = of(&audit, check);
            assert!(
                grade == "unknown" && fact.contains("/pids.max': no such file"),
                "{check} {grade} {fact}"
            );
        }
        said(&guard, &["rm", "--force", &id]);
    });
}

#[test]
fn a_probe_at_the_limit_of_processes_is_unknown() {
    privileged!(guard, {
        let limits = ["--cgroup", "pids.max=1", "--parent-cgroup", guard.name()];
        let id = sleeper(&guard, "full", &limits);
        let (output, audit) = audit_by(&guard, &["env"], &["--probe", &id]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{audit}");
        let (grade, fact) = of(&audit, "escape");
        assert_eq!(grade, "unknown", "{fact}");
        assert_eq!((&audit["ok"], of(&audit, "owner").0.as_str()), (&json!(true), "good"));
        said(&guard, &["rm", "--force", &id]);
    });
}
