//! Values that are no mistakes: names of users, sizes and durations with units.

use std::fs;

use super::*;

/// The number of a name in a file of users or groups.
fn number_in(file: &str, name: &str) -> Option<String> {
    let lines = fs::read_to_string(file).unwrap_or_default();
    let line = lines.lines().find(|line| line.starts_with(&format!("{name}:")))?;
    line.split(':').nth(2).map(str::to_owned)
}

/// The values of a line of `/proc/PID/status` or `/proc/PID/limits`.
fn line_of(file: &str, start: &str) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(start)).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn names_of_users_and_values_with_units_are_accepted() {
    privileged!(guard, {
        let (uid, gid) = (number_in("/etc/passwd", "nobody"), number_in("/etc/group", "nogroup"));
        let needs = "a user nobody and a group nogroup";
        let test = "accepted::names_of_users_and_values_with_units_are_accepted";
        let (Some(uid), Some(gid)) = (uid, gid) else { return testkit::skip(test, needs) };
        let id = guard.named("jail");
        let line = Line::good(&guard).with("--uid", "nobody").with("--gid", "nogroup");
        let line = line.with("--resource-limit", "fsize=1m").with("--ramfs", "64KiB");
        let made = run("stockade", &line.arguments("create"));
        assert_eq!((made.code, made.stderr.as_str()), (0, ""));
        let socket = ["start", &id, "--log-size", "64k", "--ready=/run/api.sock", "--timeout", "200ms"];
        let late = stockade(&guard, &[&socket[..], &["--", "sleep"]].concat());
        let said_late = format!(
            "stockade: the VMM of jail '{id}' accepts no connection at '/run/api.sock' after 0.2 s; give the VMM's \
             socket to --ready, or raise --timeout\n"
        );
        assert_eq!((late.code, late.stderr), (1, said_late));
        said(&guard, &["rm", "--force", &id]);
        assert_eq!(run("stockade", &line.arguments("create")).code, 0);
        let pid = said(&guard, &["start", &id, "--", "sleep"]);
        let (status, limits) =
            (format!("/proc/{}/status", pid.trim()), format!("/proc/{}/limits", pid.trim()));
        assert_eq!(line_of(&status, "Uid:"), vec![uid; 4]);
        assert_eq!(line_of(&status, "Gid:"), vec![gid; 4]);
        assert_eq!(line_of(&limits, "Max file size")[..2], ["1048576", "1048576"]);
        for (time, shown) in [("0.2", "0.2"), ("100ms", "0.1"), ("0s", "0"), ("0.001m", "0.06")] {
            let late = stockade(&guard, &["wait", "--timeout", time, &id]);
            let line = format!("stockade: {id} is still running after {shown} s\n");
            assert_eq!((late.code, late.stderr), (124, line), "{time}");
        }
        let mine = ["ps", "-q", "--filter", "uid=nobody", "--filter", "younger=1.5h"];
        assert_eq!(said(&guard, &mine), format!("{id}\n"));
        assert_eq!(said(&guard, &["ps", "-q", "--filter", "uid=root"]), "");
        let file = guard.file("image", "text");
        let image = format!("{}=image", file.display());
        said(&guard, &["place", &id, &image, "--owner", "nobody:nogroup", "--how", "copy"]);
        said(&guard, &["stop", "--timeout", "2m", &id]);
        said(&guard, &["rm", "--force", "--timeout", "500ms", &id]);
    });
}

#[test]
fn a_cgroup_setting_with_a_unit_is_written_in_bytes() {
    privileged!(guard, {
        let hierarchy = testkit::cgroup_v1_mount("memory");
        let (mount, file) = match hierarchy {
            Some(mount) => (mount, "memory.limit_in_bytes"),
            None => (testkit::unified_mount().unwrap(), "memory.max"),
        };
        let parent = guard.name();
        // The kernel alone takes `64M` too, but not `64MiB`.
        let line =
            Line::good(&guard).with("--parent-cgroup", parent).with("--cgroup", format!("{file}=64MiB"));
        let made = run("stockade", &line.arguments("create"));
        assert_eq!((made.code, made.stderr.as_str()), (0, ""));
        let id = guard.named("jail");
        let written = fs::read_to_string(mount.join(parent).join(&id).join(file)).unwrap();
        said(&guard, &["rm", &id]);
        assert_eq!(written, "67108864\n");
    });
}

#[test]
fn a_jail_file_takes_names_and_units() {
    privileged!(guard, {
        let (id, vmm) = (guard.named("jail"), program("stockade-probe"));
        let text = format!(
            "[[jail]]\nid = '{id}'\nexec-file = '{}'\nchroot-base-dir = 'base'\nuid = 'root'\ngid = 'root'\n\
             ramfs = '64K'\ngrace = 0.5\nresource-limit = {{ fsize = '1G' }}\nlog-size = '1MiB'\n",
            vmm.display()
        );
        let file = guard.file("jail.toml", &text);
        let plan = said(&guard, &["plan", "-f", &file.display().to_string()]);
        for part in ["(65536 bytes), owner 0:0", "limit the size of files to 1073741824 bytes"] {
            assert!(plan.contains(part), "{part}: {plan}");
        }
    });
}

#[test]
fn a_file_whose_name_begins_with_a_tilde_is_used() {
    privileged!(guard, {
        let directory = guard.directory().join("~");
        fs::create_dir(&directory).unwrap();
        fs::copy(program("stockade-probe"), directory.join("vmm")).unwrap();
        let line = Line::good(&guard).with("--exec-file", "~/vmm").arguments("run");
        let output = run_with(Command::new(program("stockade")).args(line).current_dir(guard.directory()));
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    });
}
