//! Adopted jails on a host with cgroup v2 alone. On other hosts these tests are skipped; `cargo xtask vm-test` runs
//! them in a virtual machine.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::Command;

use stockade::spec::HostPath;
use stockade::{AdoptOptions, AdoptSpec, Layout};
use testkit::{Guard, program, run_with, unified, unified_mount};

const VMM: &str = "stockade-probe";

fn adopt_and_start(guard: &Guard, parent: &str, setting: &str) -> stockade::Adopted {
    let base = HostPath::future_directory(&guard.base()).unwrap();
    let id = guard.named("jail");
    let wants = AdoptOptions {
        cgroups: vec![setting.parse().unwrap()],
        parent_cgroup: Some(parent.parse().unwrap()),
        ..AdoptOptions::default()
    };
    let jail = Some(Layout::named(base.clone(), VMM, &id).unwrap());
    let adopted =
        guard.store().adopt(&AdoptSpec { name: id.parse().unwrap(), base, jail, options: wants }).unwrap();
    let mut jailer = Command::new(program("jailer"));
    jailer.args(["--id", &id, "--exec-file"]).arg(program(VMM)).arg("--chroot-base-dir").arg(guard.base());
    jailer.args(["--uid", "12345", "--gid", "12346", "--daemonize", "--cgroup-version", "2"]);
    jailer.args(["--cgroup", setting, "--parent-cgroup", parent, "--", "sleep"]);
    let output = run_with(&mut jailer);
    assert_eq!(output.code, 0, "{output:?}");
    adopted
}

#[test]
fn the_cgroup_of_an_adopted_jail_is_removed_with_its_vmm() {
    unified!(guard, {
        let parent = format!("{}/deep", guard.name());
        let adopted = adopt_and_start(&guard, &parent, "pids.max=20");
        let cgroup = unified_mount().unwrap().join(&parent).join(guard.named("jail"));
        let pids = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
        let vmm = Path::new("/proc").join(pids.trim());
        assert!(vmm.exists());
        let report = adopted.teardown().unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert!(!cgroup.exists());
        assert!(cgroup.parent().unwrap().exists(), "other jails may be in it");
    });
}
