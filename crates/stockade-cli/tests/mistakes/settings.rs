//! Ids, numbers, limits and cgroups.

use super::*;

#[test]
fn ids_are_checked() {
    privileged!(guard, {
        let cases = [
            ("a/b".to_owned(), "invalid character '/' at position 2; use letters, digits and '-'"),
            (String::new(), "the id has 0 characters; use 1 to 64"),
            ("x".repeat(65), "the id has 65 characters; use 1 to 64"),
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
            (
                "--uid",
                "4294967296",
                "'4294967296' is not a user ID; use 0 to 4294967294, or a name in '/etc/passwd'",
            ),
            (
                "--uid",
                "4294967295",
                "'4294967295' is not a user ID; use 0 to 4294967294, or a name in '/etc/passwd'",
            ),
            ("--gid", "-1", "'-1' is not a group ID; use 0 to 4294967294, or a name in '/etc/group'"),
            ("--resource-limit", "cores=1", "'cores' is not a resource limit; use no-file or fsize"),
            ("--resource-limit", "no-file", "'no-file' is not NAME=VALUE; use for example no-file=1024"),
            (
                "--resource-limit",
                "no-file=10M",
                "'10M' is not a limit: invalid digit found in string; use a whole number without a unit",
            ),
            ("--cgroup", "cpu.shares", "'cpu.shares' is not FILE=VALUE; use for example pids.max=64"),
            (
                "--cgroup",
                "../cpu.shares=1",
                "'../cpu.shares=1' is not a cgroup file; use CONTROLLER.NAME, for example pids.max",
            ),
            ("--cgroup-version", "3", "'3' is not a cgroup version; use 1 or 2"),
            (
                "--parent-cgroup",
                "/a",
                "'/a' is not a path below the hierarchy; use one such as vms/web, without a leading slash, '.' and '..'",
            ),
            (
                "--ramfs",
                "lots",
                "'lots' is not a size; use a number of bytes, or one with K, M, G or T such as 512M or 1GiB",
            ),
            (
                "--netns",
                "..",
                "'..' cannot name a network namespace; use one path component that does not begin with '.'",
            ),
            (
                "--netns",
                "/run/netns/no-such",
                "cannot open '/run/netns/no-such': no such file or directory; \
                 check the path, or use a name without a slash for a namespace of the jail, or run `ip netns add` for one that persists",
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
        let said = "--cgroup: this host has no cgroup controller 'nosuch'; run `stockade doctor` for the available \
                    controllers";
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
        assert!(output.stderr.starts_with("stockade: --cgroup: cannot write '/"), "{output:?}");
        let end =
            "/pids.maximum': no such file in this cgroup; use a file that the controller has on this host\n";
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
            "stockade: --cgroup: 'memory.max' exists only in cgroup v2, but this jail uses v1; use \
             'memory.limit_in_bytes'\n",
            "stockade: --cgroup: 'memory.limit_in_bytes' exists only in cgroup v1, but this jail uses v2; use \
             'memory.max'\n",
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
        let said = "--cgroup: this host has no cgroup controller 'pids' in cgroup v2, but one in v1; \
                    remove --cgroup-version or set it to 1";
        refused(&guard, &line, said);
    });
}

#[test]
fn a_value_that_the_kernel_rejects_is_named_with_its_flag() {
    privileged!(guard, {
        let parent = guard.named("parent");
        let line = Line::good(&guard).with("--cgroup", "pids.max=many").with("--parent-cgroup", &parent);
        let output = line.run();
        assert_eq!(output.code, 125);
        assert!(output.stderr.starts_with("stockade: --cgroup: cannot write '/"), "{output:?}");
        let end = "/pids.max': invalid argument: the kernel rejects 'pids.max=many'; use a value that this \
                   file takes\n";
        assert!(output.stderr.ends_with(end), "{output:?}");
        assert_eq!((output.stdout.as_str(), output.stderr.lines().count()), ("", 1));
        nothing_created(&guard);
        let line = Line::good(&guard).with("--resource-limit", "no-file=99999999999");
        let said = "--resource-limit: cannot limit the number of open files to 99999999999: operation not permitted: \
                    the limit exceeds stockade's own hard limit (ulimit -H); use a lower one or raise the hard limit";
        refused(&guard, &line, said);
        let line = Line::good(&guard).with("--netns", "/etc/passwd");
        let said = "--netns: '/etc/passwd' is not a network namespace; remove it, or name another";
        refused(&guard, &line, said);
    });
}
