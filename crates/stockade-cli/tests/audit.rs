//! `audit` reports the facts about a running jail, independent of its receipt.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};
use testkit::{Guard, command, privileged, program, run_with, said, stockade};

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
        let root = std::path::PathBuf::from(root["paths"]["root"].as_str().unwrap());
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
        assert!(results.iter().all(|result| result["kind"] == "fail"), "quiet");
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
