//! Section 4, version 1: a hierarchy for each controller.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::ground::{Ground, Live, conforms, jailer, ours_or_original, refuses};

/// Where the hierarchy of a controller is mounted. A machine without any has tests of version 2 instead.
fn hierarchy(test: &str, controller: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let first = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mut first = first.filter(|fields| fields[2] == "cgroup").peekable();
    if first.peek().is_none() {
        testkit::skip(&format!("cgroup_v1::{test}"), "cgroup v1");
        return None;
    }
    let found = first.find(|fields| fields[3].split(',').any(|option| option == controller));
    Some(found.unwrap_or_else(|| panic!("{controller} is mounted"))[1].into())
}

macro_rules! version_1 {
    ($test:literal, $($mount:ident = $controller:literal),+; $ground:ident, $body:block) => {
        $(let Some($mount) = hierarchy($test, $controller) else { return };)+
        conforms!($ground, $body);
    };
}

/// The process's cgroup in the hierarchy of a controller.
fn cgroup_of(live: &Live, controller: &str) -> String {
    let text = live.proc("cgroup");
    let lines = text.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
    let mut found = lines.filter(|fields| fields[1].split(',').any(|name| name == controller));
    found.next().unwrap()[2].to_owned()
}

/// Whether the process is in the jail's own cgroup below `parent`; the test may be in a cgroup itself.
fn is_in(live: &Live, controller: &str, ground: &Ground<'_>, parent: &str) -> bool {
    cgroup_of(live, controller).ends_with(&format!("{parent}/{}", ground.id))
}

#[test]
fn the_vmm_is_in_its_cgroup_with_every_setting() {
    version_1!("the_vmm_is_in_its_cgroup_with_every_setting", pids = "pids", cpu = "cpu"; ground, {
        let flags = ["--cgroup", "pids.max=64", "--cgroup", "cpu.shares=2", "--cgroup", "pids.max=65"];
        let live = ground.start(&flags);
        let name = ground.guard.name();
        assert!(is_in(&live, "pids", &ground, name) && is_in(&live, "cpu", &ground, name));
        let read = |at: PathBuf| fs::read_to_string(at).unwrap().trim().to_owned();
        assert_eq!(read(pids.join(name).join(&ground.id).join("pids.max")), "65", "the later value");
        assert_eq!(read(cpu.join(name).join(&ground.id).join("cpu.shares")), "2");
        // Those that nobody asked for are left alone.
        assert!(!is_in(&live, "memory", &ground, name));
    });
}

#[test]
fn a_nested_parent_is_made() {
    version_1!("a_nested_parent_is_made", pids = "pids"; ground, {
        let parent = format!("{}/a/b", ground.guard.name());
        let live = ground.start(&["--parent-cgroup", &parent, "--cgroup", "pids.max=64"]);
        assert!(is_in(&live, "pids", &ground, &parent));
        assert!(pids.join(&parent).join(&ground.id).is_dir());
    });
}

#[test]
fn without_a_setting_nothing_happens() {
    version_1!("without_a_setting_nothing_happens", pids = "pids"; ground, {
        fs::create_dir(pids.join(ground.guard.name())).unwrap();
        let live = ground.start(&["--parent-cgroup", ground.guard.name()]);
        assert!(!cgroup_of(&live, "pids").contains(ground.guard.name()));
        assert!(!pids.join(ground.guard.name()).join(&ground.id).exists());
    });
}

#[test]
fn a_cpuset_inherits_through_every_parent() {
    version_1!("a_cpuset_inherits_through_every_parent", cpuset = "cpuset"; ground, {
        let parent = format!("{}/a/b", ground.guard.name());
        let flags =
            ["--parent-cgroup", &parent, "--cgroup", "cpuset.cpus=0", "--cgroup", "cpuset.mems=0"];
        let live = ground.start(&flags);
        assert!(is_in(&live, "cpuset", &ground, &parent));
        let read = |at: PathBuf| fs::read_to_string(at).unwrap().trim().to_owned();
        assert_eq!(read(cpuset.join(&parent).join(&ground.id).join("cpuset.cpus")), "0");
        let top = read(cpuset.join("cpuset.cpus"));
        for above in [ground.guard.name(), &format!("{}/a", ground.guard.name()), &parent] {
            assert_eq!(read(cpuset.join(above).join("cpuset.cpus")), top, "{above}");
        }
        assert_eq!(crate::ground::status(live.pid(), "Cpus_allowed_list"), ["0"]);
    });
}

#[test]
fn processors_alone_bring_the_parents_memory_nodes_along() {
    version_1!("processors_alone_bring_the_parents_memory_nodes_along", cpuset = "cpuset"; ground, {
        let own = cpuset.join(ground.guard.name()).join(&ground.id);
        if ours_or_original(true, false) {
            let live = ground.start(&["--cgroup", "cpuset.cpus=0"]);
            assert!(is_in(&live, "cpuset", &ground, ground.guard.name()));
            let mems = fs::read_to_string(own.join("cpuset.mems")).unwrap();
            assert_eq!(mems, fs::read_to_string(cpuset.join("cpuset.mems")).unwrap());
        } else {
            let text = format!(
                "Failed to write to {}: No space left on device (os error 28)",
                own.join("tasks").display()
            );
            refuses(&ground.run(&["--cgroup", "cpuset.cpus=0"], &[]), &text);
        }
    });
}

#[test]
fn a_file_without_a_value_to_inherit() {
    version_1!("a_file_without_a_value_to_inherit", blkio = "blkio"; ground, {
        let file = "blkio.throttle.read_bps_device";
        // The parent is the one that found nothing to inherit.
        let parent = blkio.join(ground.guard.name());
        let text =
            format!("Failed to inherit cgroups configurations from file {file} in path {}", parent.display());
        refuses(&ground.run(&["--cgroup", &format!("{file}=8:0 1000")], &[]), &text);
    });
}

#[test]
fn a_file_that_the_controller_has_not() {
    version_1!("a_file_that_the_controller_has_not", cpu = "cpu"; ground, {
        let above = cpu.join(ground.guard.name()).join("cpu.nosuch");
        let text = format!("Failed to open file {}: No such file or directory (os error 2)", above.display());
        refuses(&ground.run(&["--cgroup", "cpu.nosuch=1"], &[]), &text);
    });
}

#[test]
fn a_value_that_the_kernel_refuses_is_told_with_its_file() {
    version_1!("a_value_that_the_kernel_refuses_is_told_with_its_file", cpu = "cpu"; ground, {
        let own = cpu.join(ground.guard.name()).join(&ground.id).join("cpu.shares");
        let text = format!("Failed to write to {}: Invalid argument (os error 22)", own.display());
        refuses(&ground.run(&["--cgroup", "cpu.shares=many"], &[]), &text);
    });
}

#[test]
fn a_directory_that_cannot_be_made() {
    version_1!("a_directory_that_cannot_be_made", cpu = "cpu"; ground, {
        // A file of the hierarchy in a directory's place.
        let at = cpu.join("tasks").join(&ground.id);
        let text = format!("Failed to create directory {}: Not a directory (os error 20)", at.display());
        refuses(&ground.run(&["--parent-cgroup", "tasks", "--cgroup", "cpu.shares=2"], &[]), &text);
    });
}

#[test]
fn twenty_jails_at_once_are_each_in_their_own() {
    version_1!("twenty_jails_at_once_are_each_in_their_own", cpuset = "cpuset"; ground, {
        let flags = ["--cgroup", "cpuset.cpus=0", "--cgroup", "cpuset.mems=0", "--cgroup", "pids.max=64"];
        let mut children = Vec::new();
        for number in 0..20 {
            ground.id = format!("jail-{number}");
            children.push(ground.command(&flags, &["sleep"]).stdin(Stdio::null()).spawn().unwrap());
        }
        for (number, child) in children.iter().enumerate() {
            let pid = i32::try_from(child.id()).unwrap();
            ground.becomes_vmm(pid);
            let text = crate::ground::proc(pid, "cgroup");
            let wanted = format!("/{}/jail-{number}", ground.guard.name());
            let found = text.lines().filter(|line| line.ends_with(&wanted)).count();
            assert_eq!(found, 2, "{text}");
        }
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(cpuset.join(ground.guard.name()).is_dir());
    });
}

#[test]
fn a_host_with_version_2_only_refuses_the_default_with_a_remedy() {
    conforms!(ground, {
        // The hierarchies of version 1 out of sight, in a mount namespace of their own.
        let hide = "awk '$3 == \"cgroup\" { print $2 }' /proc/mounts | while read at; do umount \"$at\"; done; \
                    exec \"$0\" \"$@\"";
        let mut shell = Command::new("unshare");
        shell.args(["-m", "sh", "-c", hide]).arg(jailer());
        let output = testkit::run_with(shell.args(ground.words(&["--cgroup", "pids.max=64"], &[])));
        let text = "Hierarchy not found: No hierarchy found for this cgroup version.";
        let remedy = "Hint: This host has version 2 of cgroups only, pass --cgroup-version 2.";
        refuses(&output, &ours_or_original(format!("{text}\n{remedy}"), text.to_owned()));
    });
}

#[test]
fn a_host_without_version_2_says_that_it_is_missing() {
    conforms!(ground, {
        let hide = "awk '$3 == \"cgroup2\" { print $2 }' /proc/mounts | while read at; do umount -l \"$at\"; \
                    done; exec \"$0\" \"$@\"";
        let mut shell = Command::new("unshare");
        shell.args(["-m", "sh", "-c", hide]).arg(jailer());
        let flags = ["--cgroup-version", "2", "--cgroup", "pids.max=64"];
        let output = testkit::run_with(shell.args(ground.words(&flags, &[])));
        refuses(&output, "Hierarchy not found: cgroupsv2 hierarchy missing");
    });
}
