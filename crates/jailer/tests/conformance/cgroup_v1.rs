//! Section 4, cgroup v1: a hierarchy for each controller.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use crate::fixture::{Fixture, Live, NO_PROC, conforms, drop_in_or_firecracker, refuses};

/// The mount point of a controller's hierarchy. A machine without cgroup v1 skips the test.
fn hierarchy(test: &str, controller: &str) -> Option<PathBuf> {
    if testkit::cgroup_mounts().iter().all(|mount| mount.fs_type != "cgroup") {
        testkit::skip(&format!("cgroup_v1::{test}"), "cgroup v1");
        return None;
    }
    let found = testkit::cgroup_v1_mount(controller);
    Some(found.unwrap_or_else(|| panic!("{controller} is not mounted")))
}

macro_rules! cgroup_v1 {
    ($test:literal, $($mount:ident = $controller:literal),+; $fixture:ident, $body:block) => {
        $(let Some($mount) = hierarchy($test, $controller) else { return };)+
        conforms!($fixture, $body);
    };
}

/// The process's cgroup in the hierarchy of a controller.
fn cgroup_of(live: &Live, controller: &str) -> String {
    let text = live.proc("cgroup");
    let lines = text.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
    let mut found = lines.filter(|fields| fields[1].split(',').any(|name| name == controller));
    found.next().unwrap()[2].to_owned()
}

/// Whether the process is in the jail's cgroup below `parent`. The test itself may be in a cgroup, so only the end of
/// the path counts.
fn is_in(live: &Live, controller: &str, fixture: &Fixture<'_>, parent: &str) -> bool {
    cgroup_of(live, controller).ends_with(&format!("{parent}/{}", fixture.id))
}

#[test]
fn the_vmm_is_in_its_cgroup_with_every_setting() {
    cgroup_v1!("the_vmm_is_in_its_cgroup_with_every_setting", pids = "pids", cpu = "cpu"; fixture, {
        let flags = ["--cgroup", "pids.max=64", "--cgroup", "cpu.shares=2", "--cgroup", "pids.max=65"];
        let live = fixture.start(&flags);
        let name = fixture.guard.name();
        assert!(is_in(&live, "pids", &fixture, name) && is_in(&live, "cpu", &fixture, name));
        let read = |at: PathBuf| fs::read_to_string(at).unwrap().trim().to_owned();
        assert_eq!(read(pids.join(name).join(&fixture.id).join("pids.max")), "65", "the later value");
        assert_eq!(read(cpu.join(name).join(&fixture.id).join("cpu.shares")), "2");
        // Controllers without a setting are not used.
        assert!(!is_in(&live, "memory", &fixture, name));
    });
}

#[test]
fn a_nested_parent_is_created() {
    cgroup_v1!("a_nested_parent_is_created", pids = "pids"; fixture, {
        let parent = format!("{}/a/b", fixture.guard.name());
        let live = fixture.start(&["--parent-cgroup", &parent, "--cgroup", "pids.max=64"]);
        assert!(is_in(&live, "pids", &fixture, &parent));
        assert!(pids.join(&parent).join(&fixture.id).is_dir());
    });
}

#[test]
fn without_settings_no_cgroup_is_created() {
    cgroup_v1!("without_settings_no_cgroup_is_created", pids = "pids"; fixture, {
        fs::create_dir(pids.join(fixture.guard.name())).unwrap();
        let live = fixture.start(&["--parent-cgroup", fixture.guard.name()]);
        assert!(!cgroup_of(&live, "pids").contains(fixture.guard.name()));
        assert!(!pids.join(fixture.guard.name()).join(&fixture.id).exists());
    });
}

#[test]
fn a_cpuset_inherits_through_every_parent() {
    cgroup_v1!("a_cpuset_inherits_through_every_parent", cpuset = "cpuset"; fixture, {
        let parent = format!("{}/a/b", fixture.guard.name());
        let flags =
            ["--parent-cgroup", &parent, "--cgroup", "cpuset.cpus=0", "--cgroup", "cpuset.mems=0"];
        let live = fixture.start(&flags);
        assert!(is_in(&live, "cpuset", &fixture, &parent));
        let read = |at: PathBuf| fs::read_to_string(at).unwrap().trim().to_owned();
        assert_eq!(read(cpuset.join(&parent).join(&fixture.id).join("cpuset.cpus")), "0");
        let top = read(cpuset.join("cpuset.cpus"));
        for above in [fixture.guard.name(), &format!("{}/a", fixture.guard.name()), &parent] {
            assert_eq!(read(cpuset.join(above).join("cpuset.cpus")), top, "{above}");
        }
        assert_eq!(crate::fixture::status(live.pid(), "Cpus_allowed_list"), ["0"]);
    });
}

#[test]
fn cpuset_cpus_alone_inherits_cpuset_mems() {
    cgroup_v1!("cpuset_cpus_alone_inherits_cpuset_mems", cpuset = "cpuset"; fixture, {
        let own = cpuset.join(fixture.guard.name()).join(&fixture.id);
        if drop_in_or_firecracker(true, false) {
            let live = fixture.start(&["--cgroup", "cpuset.cpus=0"]);
            assert!(is_in(&live, "cpuset", &fixture, fixture.guard.name()));
            let mems = fs::read_to_string(own.join("cpuset.mems")).unwrap();
            assert_eq!(mems, fs::read_to_string(cpuset.join("cpuset.mems")).unwrap());
        } else {
            let text = format!(
                "Failed to write to {}: No space left on device (os error 28)",
                own.join("tasks").display()
            );
            refuses(&fixture.run(&["--cgroup", "cpuset.cpus=0"], &[]), &text);
        }
    });
}

#[test]
fn a_file_without_a_value_to_inherit_is_refused() {
    cgroup_v1!("a_file_without_a_value_to_inherit_is_refused", blkio = "blkio"; fixture, {
        let file = "blkio.throttle.read_bps_device";
        // The message names the jail's own cgroup, however many parents have no value.
        for parent in [fixture.guard.name(), &format!("{}/a/b", fixture.guard.name())] {
            let own = blkio.join(parent).join(&fixture.id);
            let text =
                format!("Failed to inherit cgroups configurations from file {file} in path {}", own.display());
            let flags = ["--parent-cgroup", parent, "--cgroup", &format!("{file}=8:0 1000")];
            refuses(&fixture.run(&flags, &[]), &text);
            fs::remove_dir_all(fixture.exec_dir()).unwrap();
        }
    });
}

#[test]
fn an_unknown_file_of_a_controller_is_refused() {
    cgroup_v1!("an_unknown_file_of_a_controller_is_refused", cpu = "cpu"; fixture, {
        let above = cpu.join(fixture.guard.name()).join("cpu.nosuch").display().to_string();
        let text = format!("Failed to read file {above} into a string: No such file or directory (os error 2)");
        refuses(&fixture.run(&["--cgroup", "cpu.nosuch=1"], &[]), &text);
    });
}

#[test]
fn a_file_that_can_only_be_written_is_refused() {
    cgroup_v1!("a_file_that_can_only_be_written_is_refused", devices = "devices", memory = "memory"; fixture, {
        // The kernel refuses to read the parent's file, so no value can be inherited.
        for (hierarchy, file) in [(&devices, "devices.deny"), (&memory, "memory.force_empty")] {
            let above = hierarchy.join(fixture.guard.name()).join(file).display().to_string();
            let text = format!("Failed to read file {above} into a string: Invalid argument (os error 22)");
            refuses(&fixture.run(&["--cgroup", &format!("{file}=a")], &[]), &text);
            fs::remove_dir_all(fixture.exec_dir()).unwrap();
        }
    });
}

#[test]
fn a_refused_value_is_reported_with_its_file() {
    cgroup_v1!("a_refused_value_is_reported_with_its_file", cpu = "cpu"; fixture, {
        let own = cpu.join(fixture.guard.name()).join(&fixture.id).join("cpu.shares");
        let text = format!("Failed to write to {}: Invalid argument (os error 22)", own.display());
        refuses(&fixture.run(&["--cgroup", "cpu.shares=many"], &[]), &text);
    });
}

#[test]
fn a_cgroup_that_cannot_be_created_is_reported() {
    cgroup_v1!("a_cgroup_that_cannot_be_created_is_reported", cpu = "cpu"; fixture, {
        // A file of the hierarchy at the directory's path.
        let at = cpu.join("tasks").join(&fixture.id);
        let text = format!("Failed to create directory {}: Not a directory (os error 20)", at.display());
        refuses(&fixture.run(&["--parent-cgroup", "tasks", "--cgroup", "cpu.shares=2"], &[]), &text);
    });
}

#[test]
fn twenty_concurrent_jails_have_their_own_cgroups() {
    cgroup_v1!("twenty_concurrent_jails_have_their_own_cgroups", cpuset = "cpuset"; fixture, {
        let flags = ["--cgroup", "cpuset.cpus=0", "--cgroup", "cpuset.mems=0", "--cgroup", "pids.max=64"];
        let mut children = Vec::new();
        for number in 0..20 {
            fixture.id = format!("jail-{number}");
            children.push(fixture.command(&flags, &["sleep"]).stdin(Stdio::null()).spawn().unwrap());
        }
        for (number, child) in children.iter().enumerate() {
            let pid = i32::try_from(child.id()).unwrap();
            fixture.becomes_vmm(pid);
            let text = crate::fixture::proc(pid, "cgroup");
            let wanted = format!("/{}/jail-{number}", fixture.guard.name());
            let found = text.lines().filter(|line| line.ends_with(&wanted)).count();
            assert_eq!(found, 2, "{text}");
        }
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(cpuset.join(fixture.guard.name()).is_dir());
    });
}

#[test]
fn a_host_with_v2_only_refuses_the_default_with_a_hint() {
    conforms!(fixture, {
        // Unmount the hierarchies of cgroup v1 in a new mount namespace.
        let hide = "awk '$3 == \"cgroup\" { print $2 }' /proc/mounts | while read at; do umount \"$at\"; done; \
                    exec \"$0\" \"$@\"";
        let output = fixture.run_in_mount_namespace(hide, &["--cgroup", "pids.max=64"], &[]);
        let text = "Hierarchy not found: No hierarchy found for this cgroup version.";
        let hint = "Hint: This host has version 2 of cgroups only, pass --cgroup-version 2.";
        refuses(&output, &drop_in_or_firecracker(format!("{text}\n{hint}"), text.to_owned()));
    });
}

#[test]
fn a_host_without_cgroup_v2_reports_that() {
    conforms!(fixture, {
        let hide = "awk '$3 == \"cgroup2\" { print $2 }' /proc/mounts | while read at; do umount -l \"$at\"; \
                    done; exec \"$0\" \"$@\"";
        for flags in [&["--cgroup-version", "2", "--cgroup", "pids.max=64"][..], &["--cgroup-version", "2"]] {
            let output = fixture.run_in_mount_namespace(hide, flags, &[]);
            refuses(&output, "Hierarchy not found: No hierarchy found for this cgroup version.");
        }
    });
}

#[test]
fn a_host_without_a_mount_table_is_refused() {
    conforms!(fixture, {
        let text = "Failed to open file /proc/mounts: No such file or directory (os error 2)";
        for flags in [&["--cgroup", "pids.max=64"][..], &["--cgroup-version", "2"]] {
            refuses(&fixture.run_in_mount_namespace(NO_PROC, flags, &[]), text);
        }
        assert!(!fixture.exec_dir().exists(), "nothing is created");
    });
}
