//! Device nodes and limits that the host does not allow.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use testkit::{Guard, Output, privileged, program, run_with, skip};

/// The mount points of this type with this option.
fn mounts(kind: &str, option: &str) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/mounts").unwrap();
    let fields = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let has = |options: &str| option.is_empty() || options.split(',').any(|known| known == option);
    let found = fields.filter(|field| field[2] == kind && has(field[3]));
    found.map(|field| field[1].into()).collect()
}

/// The hierarchy of a controller in cgroup v1.
fn v1(controller: &str) -> Option<PathBuf> {
    mounts("cgroup", controller).into_iter().next()
}

/// The arguments of a jail for the probe.
fn arguments(guard: &Guard, command: &str, flags: &[&str], vmm: &[&str]) -> Vec<String> {
    let (vmm_path, base) = (program("stockade-probe"), guard.base());
    let id = guard.named("jail");
    let own = [command, "--id", &id, "--exec-file", vmm_path.to_str().unwrap()];
    let own = own.into_iter().chain(["--chroot-base-dir", base.to_str().unwrap()]);
    let all = own.chain(flags.iter().copied()).chain(["--"]).chain(vmm.iter().copied());
    all.map(str::to_owned).collect()
}

/// Runs a command line from a shell that first runs `script`, with `$1` and so on from `values`.
fn after(guard: &Guard, script: &str, values: &[&str], arguments: &[String]) -> Output {
    let count = values.len();
    let script = format!("set -e; {script}\nshift {count}; exec \"$@\"");
    let mut shell = Command::new("unshare");
    shell.args(["-m", "sh", "-c", &script, "sh"]).args(values).arg(program("stockade")).args(arguments);
    run_with(shell.env("STOCKADE_STATE_DIR", guard.state()))
}

fn run_after(guard: &Guard, script: &str, values: &[&str], flags: &[&str], vmm: &[&str]) -> Output {
    after(guard, script, values, &arguments(guard, "run", flags, vmm))
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

fn refused(output: &Output, line: &str) {
    assert_eq!((output.code, output.stderr.as_str()), (125, &*format!("stockade: {line}\n")));
}

macro_rules! needs {
    ($found:expr, $what:literal) => {
        match $found {
            Some(found) => found,
            None => return skip(std::any::type_name_of_val(&|| ()), $what),
        }
    };
}

/// Runs a jail from a process that may not create this device node.
fn run_without(guard: &Guard, devices: &Path, device: &str, flags: &[&str]) -> Output {
    let cgroup = devices.join(guard.name()).join("launcher");
    fs::create_dir_all(&cgroup).unwrap();
    let script = "echo \"$2\" > \"$1\"/devices.deny; echo $$ > \"$1\"/cgroup.procs";
    let output = run_after(guard, script, &[cgroup.to_str().unwrap(), device], flags, &["report", "exit=5"]);
    fs::remove_dir(&cgroup).unwrap();
    output
}

#[test]
fn a_device_that_the_vmm_does_not_need_is_optional() {
    let devices = needs!(v1("devices"), "cgroup v1");
    privileged!(guard, {
        let misc = fs::read_to_string("/proc/misc").unwrap();
        let minor = misc.lines().find_map(|line| line.trim().strip_suffix(" userfaultfd"));
        let userfaultfd = minor.map(|minor| ("/dev/userfaultfd", format!("c 10:{} m", minor.trim())));
        let others =
            [("/dev/net/tun", "c 10:200 m"), ("/dev/kvm", "c 10:232 m"), ("/dev/urandom", "c 1:9 m")];
        let others = others.map(|(path, rule)| (path, rule.to_owned()));
        for (path, rule) in others.into_iter().chain(userfaultfd) {
            let output = run_without(&guard, &devices, &rule, &[]);
            let note = format!(
                "stockade: the jail has no '{path}': cannot make device node '{path}': operation not permitted\n"
            );
            assert_eq!((output.code, &output.stderr), (5, &note));
            let found = json(&output)["devices"].as_array().unwrap().clone();
            assert!(found.iter().all(|device| device["path"] != path), "{found:?}");
            assert!(found.len() >= 3, "the others are there: {found:?}");
        }
    });
}

#[test]
fn a_device_that_the_profile_needs_is_required() {
    let devices = needs!(v1("devices"), "cgroup v1");
    privileged!(guard, {
        for profile in ["firecracker", "cloud-hypervisor"] {
            let output = run_without(&guard, &devices, "c 10:232 m", &["--profile", profile]);
            refused(&output, "cannot make device node '/dev/kvm': operation not permitted");
            let output = run_without(&guard, &devices, "c 10:200 m", &["--profile", profile]);
            assert_eq!(output.code, 5, "it needs no network device: {output:?}");
        }
        let needy = guard.file("needy.toml", "devices = ['/dev/net/tun']\n");
        let flags = ["--profile", needy.to_str().unwrap()];
        let output = run_without(&guard, &devices, "c 10:200 m", &flags);
        refused(&output, "cannot make device node '/dev/net/tun': operation not permitted");
        let output = run_without(&guard, &devices, "c 10:232 m", &flags);
        assert_eq!(output.code, 5, "{output:?}");
    });
}

#[test]
fn the_default_limit_of_descriptors_is_the_callers_at_most() {
    privileged!(guard, {
        let limits = |output: &Output| json(output)["limits"]["no-file"].clone();
        let output = run_after(&guard, "ulimit -n 1024", &[], &[], &["limits"]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        assert_eq!(limits(&output), serde_json::json!([1024, 1024]));
        let output = run_after(&guard, "ulimit -n 4096", &[], &[], &["limits"]);
        assert_eq!(limits(&output), serde_json::json!([2048, 2048]));
        // A requested limit is that or an error, also if it is the default's number.
        for number in ["2048", "4096"] {
            let limit = format!("no-file={number}");
            let output = run_after(&guard, "ulimit -n 1024", &[], &["--resource-limit", &limit], &["limits"]);
            if output.code == 0 {
                // With CAP_SYS_RESOURCE a process may raise its hard limit.
                continue;
            }
            refused(
                &output,
                &format!(
                    "--resource-limit: cannot limit the number of open files to {number}: operation not permitted: \
                     the limit exceeds stockade's own hard limit (ulimit -H); use a lower one or raise the hard limit"
                ),
            );
        }
    });
}

#[test]
fn an_exec_from_a_smaller_launcher_has_its_limit() {
    privileged!(guard, {
        let create = arguments(&guard, "run", &["--detach"], &["sleep"]);
        testkit::said(&guard, &create.iter().map(String::as_str).collect::<Vec<_>>());
        let id = guard.named("jail");
        let script = "ulimit -n 1024; exec \"$@\"";
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(program("stockade")).args(["exec", "--host-program"]);
        shell.arg(program("stockade-probe")).args([&id, "limits"]).env("STOCKADE_STATE_DIR", guard.state());
        let output = run_with(&mut shell);
        testkit::said(&guard, &["rm", "--force", &id]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        assert_eq!(json(&output)["limits"]["no-file"], serde_json::json!([1024, 1024]));
    });
}
