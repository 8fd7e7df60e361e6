//! Jails with a receipt of version 0.1 are listed, started, stopped and removed.
//!
//! The fixture is the receipt of a running jail that the last commit before the rename of the steps wrote. Its values
//! that differ between jails are placeholders, as `@id@`. Each test creates the same jail anew and replaces its receipt
//! by the fixture.
#![allow(clippy::unwrap_used, missing_docs)]

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use testkit::{Guard, privileged, program, said, skip, stockade};

const FIXTURE: &str = include_str!("fixtures/receipt-0.1.json");

fn has_cgroup_v1(test: &str) -> bool {
    let there = ["pids", "memory"].iter().all(|name| Path::new("/sys/fs/cgroup").join(name).is_dir());
    if !there {
        skip(test, "a host with pids and memory in cgroup v1");
    }
    there
}

/// The body of a test that needs root and cgroup v1.
macro_rules! privileged_v1 {
    ($guard:ident, $body:block) => {
        if has_cgroup_v1(std::any::type_name_of_val(&|| ())) {
            privileged!($guard, $body);
        }
    };
}

struct Jail<'g> {
    guard: &'g Guard,
    id: String,
}

impl<'g> Jail<'g> {
    /// Creates the jail of the fixture, with its placements.
    fn create(guard: &'g Guard) -> Self {
        let (id, net) = (guard.named("old"), guard.named("net"));
        let (base, probe) = (path(&guard.base()), path(&program("stockade-probe")));
        let what = ["create", "--id", &id, "--exec-file", &probe, "--chroot-base-dir", &base];
        let with = ["--netns", &net, "--ramfs", "1M", "--parent-cgroup", guard.name()];
        let limits = ["--cgroup", "pids.max=16", "--cgroup", "memory.limit_in_bytes=64M"];
        said(guard, &[&what[..], &with, &limits].concat());
        let jail = Self { guard, id };
        let image = path(&guard.file("image", "an image"));
        std::fs::create_dir_all(jail.share()).unwrap();
        std::fs::write(jail.share().join("file"), "shared").unwrap();
        let share = path(&jail.share());
        jail.said(&["place"], &[&format!("{image}=drives/root.img"), &format!("{share}:bind:ro")]);
        jail
    }

    fn start(&self, action: &str) -> i64 {
        self.said(&["start"], &["--", action]).trim().parse().unwrap()
    }

    fn share(&self) -> PathBuf {
        self.guard.directory().join("share")
    }

    fn receipt(&self) -> PathBuf {
        self.guard.state().join(&self.id).join("receipt.json")
    }

    /// Runs a command on the jail, which must succeed.
    fn said(&self, command: &[&str], arguments: &[&str]) -> String {
        said(self.guard, &[command, &[&self.id], arguments].concat())
    }

    /// The fixture with the values of this jail.
    fn old_receipt(&self) -> Value {
        let new: Value = serde_json::from_slice(&std::fs::read(self.receipt()).unwrap()).unwrap();
        let step = |kind: &str| new["steps"].as_array().unwrap().iter().find(|step| step["kind"] == kind);
        let tracking = step("cgroup-v2").expect("a tracking cgroup");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let texts = [
            ("id", self.id.clone()),
            ("base", path(&self.guard.base())),
            ("executable", path(&program("stockade-probe"))),
            ("image", path(&self.guard.directory().join("image"))),
            ("share", path(&self.share())),
            ("netns", self.guard.named("net")),
            ("parent-cgroup", self.guard.name().to_owned()),
            ("boot-id", text(&new["boot_id"])),
            ("nonce", text(&new["nonce"])),
            ("cgroup-v2", text(&tracking["hierarchy"])),
            ("tracking-cgroup", text(&tracking["path"])),
        ];
        let vmm = step("vmm").unwrap_or(&Value::Null);
        let devices = new["steps"].as_array().unwrap().iter().filter(|step| step["kind"] == "device-node");
        let userfaultfd = devices.into_iter().find(|step| step["path"] == "/dev/userfaultfd");
        let share = std::fs::metadata(self.share()).unwrap();
        let numbers = [
            ("pid-namespace", &new["pid_namespace"]),
            ("started-us", &new["spec"]["started_us"]),
            ("created-ms", &new["created_ms"]),
            ("userfaultfd-minor", &userfaultfd.unwrap_or(&Value::Null)["minor"]),
            ("share-device", &json!(share.dev())),
            ("share-inode", &json!(share.ino())),
            ("vmm-pid", &vmm["process"]["pid"]),
            ("vmm-started", &vmm["process"]["started"]),
            ("monitor-pid", &vmm["monitor"]["pid"]),
            ("monitor-started", &vmm["monitor"]["started"]),
        ];
        let mut filled = FIXTURE.to_owned();
        for (name, value) in texts {
            filled = filled.replace(&format!("@{name}@"), &value);
        }
        for (name, value) in numbers {
            filled =
                filled.replace(&format!("\"@{name}@\""), &value.as_u64().unwrap_or_default().to_string());
        }
        assert!(!filled.contains('@'), "a placeholder without a value: {filled}");
        let mut old: Value = serde_json::from_str(&filled).unwrap();
        if vmm.is_null() {
            remove_vmm(&mut old);
        }
        old
    }

    fn replace_receipt(&self, receipt: &Value) {
        std::fs::write(self.receipt(), receipt.to_string()).unwrap();
    }

    /// The entry of `ps`.
    fn listed(&self) -> Value {
        let listed: Value = serde_json::from_str(&said(self.guard, &["ps", "--json"])).unwrap();
        let [jail] = listed.as_array().unwrap().as_slice() else { panic!("one jail: {listed}") };
        assert_eq!(jail["id"], json!(self.id));
        jail.clone()
    }

    fn inspected(&self) -> Value {
        serde_json::from_str(&self.said(&["inspect", "--json"], &[])).unwrap()
    }

    fn remove(self) {
        assert_eq!(self.said(&["rm"], &[]), format!("{}\n", self.id));
        nothing_left(self.guard);
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn nothing_left(guard: &Guard) {
    assert!(!guard.base().exists() && !guard.state().exists());
}

/// Makes the receipt that of a jail that was not started.
fn remove_vmm(receipt: &mut Value) {
    let vmm = receipt["steps"].as_array_mut().unwrap().pop().unwrap();
    assert_eq!(vmm["kind"], "vmm");
    receipt["spec"]["arguments"] = json!([]);
    let execute = receipt["enter"].as_array_mut().unwrap().last_mut().unwrap();
    execute["arguments"].as_array_mut().unwrap().truncate(1);
}

/// A process that has exited.
fn dead_process() -> Value {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    // No process has started so early and has this pid, even if the pid is used again.
    json!({ "pid": child.id(), "started": 1 })
}

#[test]
fn a_created_jail_of_0_1_is_filled_started_and_removed() {
    privileged_v1!(guard, {
        let jail = Jail::create(&guard);
        jail.replace_receipt(&jail.old_receipt());
        assert_eq!(jail.listed()["state"], "created");
        assert_eq!(said(&guard, &["gc"]), "no abandoned jails\n");
        let facts = jail.inspected();
        assert_eq!((&facts["state"], &facts["problem"]), (&json!("created"), &Value::Null));
        assert_eq!(facts["steps"].as_array().unwrap().len(), 18);
        assert_eq!(facts["paths"]["netns"], format!("/run/netns/{}", guard.named("net")));
        assert_eq!(facts["paths"]["cgroups"].as_array().unwrap().len(), 3);
        let second = format!("{}=second.img", path(&guard.file("second", "another image")));
        assert_eq!(jail.said(&["place"], &[&second]), "/second.img\n");
        assert_eq!(jail.said(&["unplace"], &["drives/root.img"]), "/drives/root.img\n");
        let actions = ["--", "read=/second.img", "read=/share/file", "exit=7"];
        jail.said(&["start"], &actions);
        assert_eq!(jail.said(&["wait"], &[]), "7\n");
        assert_eq!(jail.said(&["logs"], &[]), "{\"read\":\"another image\"}\n{\"read\":\"shared\"}\n");
        jail.remove();
    });
}

#[test]
fn a_running_jail_of_0_1_is_listed_entered_stopped_and_removed() {
    privileged_v1!(guard, {
        let jail = Jail::create(&guard);
        let pid = jail.start("sleep");
        jail.replace_receipt(&jail.old_receipt());
        let listed = jail.listed();
        assert_eq!((&listed["state"], &listed["pid"]), (&json!("running"), &json!(pid)));
        let facts = jail.inspected();
        assert_eq!(facts["vmm"], json!({ "pid": pid, "alive": true }));
        assert_eq!(facts["monitor"]["alive"], json!(true));
        assert_eq!(facts["spec"]["arguments"], json!(["sleep"]));
        let read = jail.said(&["exec"], &["--", "/stockade-probe", "read=/share/file"]);
        assert_eq!(read, "{\"read\":\"shared\"}\n");
        jail.said(&["stop", "--timeout", "5"], &[]);
        assert_eq!(jail.said(&["wait"], &[]), "143\n");
        assert_eq!(jail.listed()["state"], "exited");
        jail.remove();
    });
}

#[test]
fn an_exited_jail_of_0_1_keeps_its_status_and_log() {
    privileged_v1!(guard, {
        let jail = Jail::create(&guard);
        jail.said(&["start"], &["--", "read=/drives/root.img", "exit=7"]);
        assert_eq!(jail.said(&["wait"], &[]), "7\n");
        jail.replace_receipt(&jail.old_receipt());
        let listed = jail.listed();
        assert_eq!((&listed["state"], &listed["ended"]), (&json!("exited"), &json!({ "exited": 7 })));
        assert_eq!(said(&guard, &["gc"]), "no abandoned jails\n");
        assert_eq!(jail.said(&["logs"], &[]), "{\"read\":\"an image\"}\n");
        jail.remove();
    });
}

#[test]
fn gc_removes_abandoned_jails_of_0_1() {
    privileged_v1!(guard, {
        for with_vmm in [false, true] {
            let jail = Jail::create(&guard);
            let mut old = jail.old_receipt();
            old["keeper"] = dead_process();
            if with_vmm {
                let vmm =
                    json!({ "kind": "vmm", "process": dead_process(), "search": false, "monitor": null });
                old["steps"].as_array_mut().unwrap().push(vmm);
            }
            jail.replace_receipt(&old);
            assert_eq!(jail.listed()["state"], "abandoned");
            said(&guard, &["gc"]);
            nothing_left(&guard);
        }
    });
}

#[test]
fn gc_removes_tombstones_of_0_1() {
    privileged!(guard, {
        for status in ["exited0", "killed9", "unknown", "none"] {
            let tombstone = guard.state().join(format!(".gone.0123456789abcdef.42.{status}.vm-1"));
            std::fs::create_dir_all(&tombstone).unwrap();
            said(&guard, &["gc"]);
            assert!(!tombstone.exists(), "{status}");
        }
        // The test created it without stockade's mark, so it remains.
        std::fs::remove_dir(guard.state()).unwrap();
    });
}

#[test]
fn a_jail_of_0_1_in_another_pid_namespace_is_left_alone() {
    privileged_v1!(guard, {
        let jail = Jail::create(&guard);
        let old = jail.old_receipt();
        let mut foreign = old.clone();
        foreign["pid_namespace"] = json!(old["pid_namespace"].as_u64().unwrap() + 1);
        jail.replace_receipt(&foreign);
        assert_eq!(jail.listed()["state"], "foreign");
        assert_eq!(said(&guard, &["gc"]), "no abandoned jails\n");
        assert_eq!(stockade(&guard, &["rm", &jail.id]).code, 1);
        jail.replace_receipt(&old);
        jail.remove();
    });
}
