//! Ids, numbers, limits and cgroups.

use super::*;

#[test]
fn ids_are_checked() {
    privileged!(guard, {
        let cases = [
            ("a/b".to_owned(), "Invalid instance ID: Invalid char (/) at position 1"),
            (String::new(), "Invalid instance ID: Invalid len (0);  the length must be between 1 and 64"),
            ("x".repeat(65), "Invalid instance ID: Invalid len (65);  the length must be between 1 and 64"),
        ];
        for (id, said) in cases {
            refused(&guard, &Line::good(&guard).with("--id", id), &format!("--id: {said}"));
        }
    });
}

#[test]
fn numbers_and_settings_are_checked() {
    privileged!(guard, {
        let cases = [
            ("--uid", "root", "Invalid uid: root"),
            ("--uid", "4294967296", "Invalid uid: 4294967296"),
            ("--uid", "4294967295", "Invalid uid: 4294967295"),
            ("--gid", "-1", "Invalid gid: -1"),
            ("--resource-limit", "cores=1", "Invalid resource argument: cores"),
            ("--resource-limit", "no-file", "Invalid format for resources limits: no-file"),
            ("--cgroup", "cpu.shares", "Invalid format for cgroups: cpu.shares"),
            ("--cgroup", "../cpu.shares=1", "Cgroup invalid file: ../cpu.shares=1"),
            ("--cgroup-version", "3", "3 is an invalid cgroup version specifier"),
            (
                "--parent-cgroup",
                "/a",
                "Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'",
            ),
            ("--ramfs", "lots", "'lots' is not a size, such as 1M"),
            ("--netns", "..", "Invalid network namespace name: \"..\""),
            (
                "--netns",
                "/run/netns/no-such",
                "Failed to canonicalize path /run/netns/no-such: No such file or directory (os error 2); \
                 use a name without a slash for a namespace of the jail, or run `ip netns add` for one that persists",
            ),
        ];
        for (flag, value, said) in cases {
            let mut arguments = Line::good(&guard).arguments("run");
            // With an equals sign, so that a value may begin with a dash.
            arguments.push(format!("{flag}={value}"));
            let output = run("stockade", &arguments);
            assert_eq!(output.stderr, format!("stockade: {flag}: {said}\n"));
            assert_eq!(output.code, 125);
            nothing_created(&guard);
        }
    });
}

#[test]
fn a_missing_controller_is_named() {
    privileged!(guard, {
        let line = Line::good(&guard).with("--cgroup", "nosuch.max=1");
        let said =
            "--cgroup: Controller nosuch is unavailable; run `stockade doctor` for the available controllers";
        refused(&guard, &line, said);
    });
}

#[test]
fn a_missing_cgroup_file_is_named_with_its_flag() {
    privileged!(guard, {
        let parent = guard.named("parent");
        let line = Line::good(&guard).with("--cgroup", "pids.maximum=1").with("--parent-cgroup", &parent);
        let output = line.run();
        assert_eq!(output.code, 125);
        assert!(output.stderr.starts_with("stockade: --cgroup: failed to open /"), "{output:?}");
        let end = "/pids.maximum: No such file or directory (os error 2): the controller has no such file on this \
                   host\n";
        assert!(output.stderr.ends_with(end), "{output:?}");
        nothing_created(&guard);
    });
}

#[test]
fn a_cgroup_file_of_the_other_version_is_named_with_its_flag() {
    privileged!(guard, {
        // One of the two files belongs to the cgroup version that this host does not use for memory.
        let output = Line::good(&guard).with("--cgroup", "memory.max=1000000000").run();
        let output = if output.code == 0 {
            Line::good(&guard).with("--cgroup", "memory.limit_in_bytes=1000000000").run()
        } else {
            output
        };
        let said = [
            "stockade: --cgroup: memory.max is a file of cgroup version 2, and the jail's cgroup is of version 1: \
             there it is memory.limit_in_bytes\n",
            "stockade: --cgroup: memory.limit_in_bytes is a file of cgroup version 1, and the jail's cgroup is of \
             version 2: there it is memory.max\n",
        ];
        assert!(said.contains(&output.stderr.as_str()), "{}", output.stderr);
        assert_eq!(output.code, 125);
        nothing_created(&guard);
    });
}

#[test]
fn a_controller_of_the_other_version_is_named_with_the_fix() {
    privileged!(guard, {
        // With only cgroup v2 mounted, there is no hierarchy of the other version to find the controller in.
        if testkit::unified_mount().is_some() {
            let test = "settings::a_controller_of_the_other_version_is_named_with_the_fix";
            return testkit::skip(test, "cgroup v1");
        }
        let line = Line::good(&guard).with("--cgroup", "pids.max=5").with("--cgroup-version", "2");
        let said = "--cgroup: Controller pids is unavailable in cgroup v2, but this host has it in v1; \
                    remove --cgroup-version or set it to 1";
        refused(&guard, &line, said);
    });
}

#[test]
fn a_value_that_the_kernel_rejects_is_named_with_its_flag() {
    privileged!(guard, {
        let parent = guard.named("parent");
        let line = Line::good(&guard).with("--cgroup", "pids.max=many").with("--parent-cgroup", &parent);
        refused(
            &guard,
            &line,
            "--cgroup: the kernel rejects 'pids.max=many': Invalid argument (os error 22)",
        );
        let line = Line::good(&guard).with("--resource-limit", "no-file=99999999999");
        let said = "--resource-limit: failed to limit the number of open files to 99999999999: Operation not \
                    permitted (os error 1): the limit exceeds stockade's own hard limit (ulimit -H)";
        refused(&guard, &line, said);
        let line = Line::good(&guard).with("--netns", "/etc/passwd");
        let said = "--netns: failed to join network namespace /etc/passwd: Invalid argument (os error 22): the file \
                    is not a network namespace";
        refused(&guard, &line, said);
    });
}
