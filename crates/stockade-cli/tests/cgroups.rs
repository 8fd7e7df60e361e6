//! Cgroups that exist before the jail, parents, and hierarchies with odd mounts.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use testkit::{Guard, Output, command, privileged, program, run_with, skip};

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

/// The unified hierarchy, if it has hugetlb beside cgroup v1.
fn hybrid() -> Option<PathBuf> {
    let unified = mounts("cgroup2", "").into_iter().next()?;
    let controllers = fs::read_to_string(unified.join("cgroup.controllers")).unwrap();
    controllers.split_whitespace().any(|name| name == "hugetlb").then_some(unified)
}

/// The arguments of a jail in the test's parent cgroup.
fn arguments(guard: &Guard, command: &str, flags: &[&str], vmm: &[&str]) -> Vec<String> {
    let (vmm_path, base) = (program("stockade-probe"), guard.base());
    let id = guard.named("jail");
    let own = [command, "--id", &id, "--exec-file", vmm_path.to_str().unwrap()];
    let own = own.into_iter().chain(["--chroot-base-dir", base.to_str().unwrap()]);
    let all = own.chain(flags.iter().copied()).chain(["--"]).chain(vmm.iter().copied());
    all.map(str::to_owned).collect()
}

fn run(guard: &Guard, flags: &[&str], vmm: &[&str]) -> Output {
    let arguments = arguments(guard, "run", flags, vmm);
    run_with(&mut command(guard, &arguments.iter().map(String::as_str).collect::<Vec<_>>()))
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

#[test]
fn a_left_over_cgroup_is_replaced_with_a_note() {
    let cpu = needs!(v1("cpu"), "cgroup v1");
    privileged!(guard, {
        let own = cpu.join(guard.name()).join(guard.named("jail"));
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("cpu.cfs_quota_us"), "5000").unwrap();
        let flags = ["--parent-cgroup", guard.name(), "--cgroup", "cpu.shares=512"];
        let output = run(&guard, &flags, &["exit=7"]);
        let note = format!(
            "stockade: replaced cgroup '{}' and its values: no process was in it, and no jail owns it; use \
             --parent-cgroup for limits set beforehand\n",
            own.display()
        );
        assert_eq!((output.code, output.stderr), (7, note));
        let output = run(&guard, &flags, &["exit=7"]);
        assert_eq!((output.code, output.stderr.as_str()), (7, ""));
    });
}

#[test]
fn a_misspelt_file_is_named_in_both_versions() {
    let pids = needs!(v1("pids"), "cgroup v1");
    let unified = needs!(hybrid(), "hugetlb in cgroup v2 beside cgroup v1");
    privileged!(guard, {
        let enabled = fs::read_to_string(unified.join("cgroup.subtree_control")).unwrap();
        for (mount, file) in [(&pids, "pids.maximum"), (&unified, "hugetlb.2MB.maximum")] {
            let setting = format!("{file}=1");
            let output = run(&guard, &["--parent-cgroup", guard.name(), "--cgroup", &setting], &["exit=0"]);
            let at = mount.join(guard.name()).join(guard.named("jail")).join(file);
            refused(
                &output,
                &format!(
                    "--cgroup: cannot write '{}': no such file in this cgroup; use a file that the controller has on \
                     this host",
                    at.display()
                ),
            );
        }
        if !enabled.contains("hugetlb") {
            fs::write(unified.join("cgroup.subtree_control"), "-hugetlb").unwrap();
        }
    });
}

#[test]
fn a_value_may_contain_an_equals_sign() {
    privileged!(guard, {
        // Whether or not this host has the controller: the setting itself is understood.
        let output = run(&guard, &["--cgroup", "nosuch.max=254:0 rbps=1048576 wiops=120"], &["exit=0"]);
        let line = "--cgroup: this host has no cgroup controller 'nosuch'; run `stockade doctor` for the available \
                    controllers";
        refused(&output, line);
    });
}

#[test]
fn plan_shows_the_parent_that_is_joined() {
    let pids = needs!(v1("pids"), "cgroup v1");
    privileged!(guard, {
        let parent = pids.join(guard.name());
        fs::create_dir(&parent).unwrap();
        let arguments = arguments(&guard, "plan", &["--parent-cgroup", guard.name()], &[]);
        let plan = run_with(&mut command(&guard, &arguments.iter().map(String::as_str).collect::<Vec<_>>()));
        let line = format!("move into the cgroup through {}/tasks", parent.display());
        assert!(plan.code == 0 && plan.stdout.contains(&line), "{plan:?}");
    });
}

#[test]
fn a_misspelt_parent_is_refused_with_its_flag() {
    privileged!(guard, {
        let output = run(&guard, &["--parent-cgroup", guard.name()], &["exit=0"]);
        let line = format!(
            "--parent-cgroup: there is no cgroup '{}' in any hierarchy; create it, or add --cgroup, for which it is \
             created",
            guard.name()
        );
        refused(&output, &line);
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}

#[test]
fn a_parent_in_the_freezer_holds_the_tracking_cgroup() {
    let freezer = needs!(v1("freezer"), "cgroup v1");
    privileged!(guard, {
        fs::create_dir(freezer.join(guard.name())).unwrap();
        // Without cgroup v2, the tracking cgroup is in the freezer.
        let hide =
            "awk '$3 == \"cgroup2\" { print $2 }' /proc/mounts | while read at; do umount \"$at\"; done";
        let flags = ["--parent-cgroup", guard.name()];
        let plan = after(&guard, hide, &[], &arguments(&guard, "plan", &flags, &[])).stdout;
        let parent = freezer.join(guard.name()).display().to_string();
        assert!(plan.contains(&format!("cgroup {parent}/stockade-{}-", guard.named("jail"))), "{plan}");
        assert!(!plan.contains(&format!("{parent}/tasks")), "it is in one cgroup of the hierarchy: {plan}");
        let output = run_after(&guard, hide, &[], &flags, &["daemon=1", "exit=5"]);
        assert_eq!((output.code, output.stderr.as_str()), (5, ""), "{}", output.stdout);
        let left = fs::read_dir(freezer.join(guard.name())).unwrap().flatten();
        assert_eq!(left.filter(|entry| entry.path().is_dir()).count(), 0);
    });
}

#[test]
fn a_read_only_hierarchy_does_not_hide_a_writable_one() {
    let pids = needs!(v1("pids"), "cgroup v1");
    let unified = needs!(hybrid(), "hugetlb in cgroup v2 beside cgroup v1");
    privileged!(guard, {
        let enabled = fs::read_to_string(unified.join("cgroup.subtree_control")).unwrap();
        let (one, two) = (guard.directory().join("one"), guard.directory().join("two"));
        let script = "mkdir -p $3 $4; mount --bind $1 $3; mount --bind $2 $4; \
                      mount -o remount,bind,ro $1; mount -o remount,bind,ro $2";
        let values = [&unified, &pids, &one, &two].map(|path| path.to_str().unwrap());
        let flags =
            ["--parent-cgroup", guard.name(), "--cgroup", "hugetlb.2MB.max=0", "--cgroup", "pids.max=9"];
        let output = run_after(&guard, script, &values, &flags, &["exit=5"]);
        assert_eq!((output.code, output.stderr.as_str()), (5, ""));
        testkit::remove_cgroup(guard.name());
        if !enabled.contains("hugetlb") {
            fs::write(unified.join("cgroup.subtree_control"), "-hugetlb").unwrap();
        }
    });
}
