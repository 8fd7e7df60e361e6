//! Jails in the cgroup that a service manager has delegated to `stockade run`.
//!
//! These tests need a host with only cgroup v2, and are skipped elsewhere; `cargo xtask vm-test` runs them in a virtual
//! machine. `cargo xtask package-test` tests systemd itself.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::fs::XattrFlags;
use serde_json::Value;
use testkit::{Guard, command, program, remove_cgroup, run_with, said, unified, unified_mount};

/// A cgroup like that of a service.
struct Service {
    directory: PathBuf,
    /// A VMM with a unique name, because the default parent cgroup has the VMM's name.
    vmm: PathBuf,
}

impl Service {
    fn new(guard: &Guard, delegated: bool) -> Self {
        let directory = unified_mount().unwrap().join(guard.name()).join("a.slice").join("b@c.service");
        fs::create_dir_all(&directory).unwrap();
        // Like systemd with `Delegate=yes`, from the root down.
        let above: Vec<_> = directory.ancestors().skip(1).take(3).collect();
        for above in above.into_iter().rev() {
            fs::write(above.join("cgroup.subtree_control"), "+pids +memory").unwrap();
        }
        if delegated {
            rustix::fs::setxattr(&directory, "trusted.delegate", b"1", XattrFlags::empty()).unwrap();
        }
        let vmm = guard.directory().join(guard.named("vmm"));
        fs::copy(program("stockade-probe"), &vmm).unwrap();
        Self { directory, vmm }
    }

    /// Runs a detached jail from the service's cgroup. Returns its VMM's cgroup, relative to the test's own.
    fn run(&self, guard: &Guard, arguments: &[&str]) -> String {
        let id = guard.named("vm");
        let vmm = self.vmm.to_str().unwrap();
        let base = guard.base().display().to_string();
        let mut all = vec!["run", "--detach", "--id", &id, "--exec-file", vmm, "--chroot-base-dir", &base];
        all.extend(arguments);
        all.extend(["--", "sleep"]);
        let stockade = command(guard, &all);
        let mut inside = Command::new("sh");
        inside.arg("-c").arg(r#"echo $$ >"$0/cgroup.procs" && exec "$@""#).arg(&self.directory);
        inside.arg(stockade.get_program()).args(stockade.get_args());
        inside.env("STOCKADE_STATE_DIR", guard.state());
        let output = run_with(&mut inside);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{}", output.stdout);
        let jails: Value = serde_json::from_str(&said(guard, &["ps", "--json"])).unwrap();
        let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", jails[0]["pid"])).unwrap();
        cgroup.trim().strip_prefix("0::/").unwrap().to_owned()
    }

    fn remove_jail(self, guard: &Guard) {
        said(guard, &["rm", "--force", &guard.named("vm")]);
        remove_cgroup(&guard.named("vmm"));
        fs::remove_file(self.vmm).unwrap();
    }

    /// Starts another process in the service's cgroup.
    fn another(&self) -> Child {
        let child =
            Command::new(program("stockade-probe")).arg("sleep").stdin(Stdio::null()).spawn().unwrap();
        fs::write(self.directory.join("cgroup.procs"), child.id().to_string()).unwrap();
        child
    }
}

#[test]
fn a_jail_with_limits_is_in_the_services_own_cgroup() {
    unified!(guard, {
        let service = Service::new(&guard, true);
        let cgroup = service.run(&guard, &["--cgroup", "pids.max=16"]);
        assert_eq!(cgroup, format!("{}/a.slice/b@c.service/{}", guard.name(), guard.named("vm")));
        let jail = service.directory.join(guard.named("vm"));
        assert_eq!(fs::read_to_string(jail.join("pids.max")).unwrap(), "16\n");
        // The VMM's monitor is in the service's cgroup too.
        let launcher = fs::read_to_string(service.directory.join(".launcher/cgroup.procs")).unwrap();
        assert_eq!(launcher.lines().count(), 1, "{launcher}");
        service.remove_jail(&guard);
        assert!(!jail.exists());
    });
}

#[test]
fn a_jail_without_limits_is_in_the_services_own_cgroup_too() {
    unified!(guard, {
        let service = Service::new(&guard, true);
        let cgroup = service.run(&guard, &[]);
        assert!(cgroup.starts_with(&format!("{}/a.slice/b@c.service/stockade-", guard.name())), "{cgroup}");
        service.remove_jail(&guard);
    });
}

#[test]
fn a_requested_parent_cgroup_is_used() {
    unified!(guard, {
        let service = Service::new(&guard, true);
        let parent = guard.named("vmm");
        let cgroup = service.run(&guard, &["--cgroup", "pids.max=16", "--parent-cgroup", &parent]);
        assert_eq!(cgroup, format!("{parent}/{}", guard.named("vm")));
        service.remove_jail(&guard);
    });
}

#[test]
fn a_cgroup_that_is_not_delegated_is_not_used() {
    unified!(guard, {
        let service = Service::new(&guard, false);
        let cgroup = service.run(&guard, &["--cgroup", "pids.max=16"]);
        assert_eq!(cgroup, format!("{}/{}", guard.named("vmm"), guard.named("vm")));
        assert!(!service.directory.join(".launcher").exists());
        service.remove_jail(&guard);
    });
}

#[test]
fn a_cgroup_with_other_processes_is_not_used() {
    unified!(guard, {
        let service = Service::new(&guard, true);
        let mut another = service.another();
        let cgroup = service.run(&guard, &["--cgroup", "pids.max=16"]);
        assert_eq!(cgroup, format!("{}/{}", guard.named("vmm"), guard.named("vm")));
        service.remove_jail(&guard);
        another.kill().unwrap();
        another.wait().unwrap();
    });
}

#[test]
fn a_controller_that_is_not_enabled_is_used_elsewhere() {
    unified!(guard, {
        let service = Service::new(&guard, true);
        let cgroup = service.run(&guard, &["--cgroup", "pids.max=16", "--cgroup", "cpu.weight=50"]);
        assert_eq!(cgroup, format!("{}/{}", guard.named("vmm"), guard.named("vm")));
        service.remove_jail(&guard);
    });
}
