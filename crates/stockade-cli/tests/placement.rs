//! `place`, `unplace` and `--place`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use testkit::{Guard, Output, privileged, program, run_with, stdout_of, tell};

/// The command, run in the test's directory.
fn command(guard: &Guard, arguments: &[&str]) -> Command {
    let mut command = testkit::command(guard, arguments);
    command.current_dir(guard.directory());
    command
}

fn stockade(guard: &Guard, arguments: &[&str]) -> Output {
    run_with(&mut command(guard, arguments))
}

/// The output of a command that must succeed.
fn said(guard: &Guard, arguments: &[&str]) -> String {
    stdout_of(&mut command(guard, arguments))
}

fn refused(guard: &Guard, arguments: &[&str], line: &str) {
    let output = stockade(guard, arguments);
    assert_eq!((output.code, output.stdout.as_str(), output.stderr), (1, "", format!("stockade: {line}\n")));
}

/// A command that takes the flags of a jail.
fn arguments<'w>(guard: &Guard, command: &str, more: &[&'w str]) -> Vec<std::borrow::Cow<'w, str>> {
    let (base, probe) = (guard.base().display().to_string(), program("stockade-probe").display().to_string());
    let fixed = [command, "--id", &guard.named("jail"), "--exec-file", &probe, "--chroot-base-dir", &base];
    let fixed = fixed.map(|word| word.to_owned().into());
    fixed.into_iter().chain(more.iter().map(|word| (*word).into())).collect()
}

fn with_jail(guard: &Guard, command: &str, more: &[&str]) -> Output {
    let arguments = arguments(guard, command, more);
    stockade(guard, &arguments.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}

fn create(guard: &Guard, more: &[&str]) -> String {
    let output = with_jail(guard, "create", more);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{more:?}");
    guard.named("jail")
}

/// A directory that the jail's user may write to.
fn share(guard: &Guard) -> PathBuf {
    let share = guard.directory().join("share");
    std::fs::create_dir(&share).unwrap();
    std::fs::write(share.join("file"), "the host's").unwrap();
    std::os::unix::fs::chown(&share, Some(1234), Some(1234)).unwrap();
    share
}

fn nothing_left(guard: &Guard) {
    assert!(!guard.base().exists() && !guard.state().exists());
}

#[test]
fn start_attaches_binds_of_an_earlier_command() {
    privileged!(guard, {
        let share = share(&guard);
        guard.file("image", "an image");
        let id = create(&guard, &["--place", "image:ro:copy", "--place", "share=rw:bind", "--new-pid-ns"]);
        assert_eq!(said(&guard, &["place", &id, "share=ro", "--how", "bind", "--read-only"]), "/ro\n");
        let arguments =
            ["read=/image", "write=/image=x", "read=/ro/file", "write=/ro/file=x", "write=/rw/new=x"];
        said(&guard, &[&["start", &id, "--"], &arguments[..]].concat());
        assert_eq!(said(&guard, &["wait", &id]), "0\n");
        let lines = [
            r#"{"read":"an image"}"#,
            r#"{"write":"EACCES"}"#,
            r#"{"read":"the host's"}"#,
            r#"{"write":"EROFS"}"#,
            r#"{"write":"ok"}"#,
        ];
        assert_eq!(said(&guard, &["logs", &id]), lines.map(|line| format!("{line}\n")).concat());
        assert_eq!(said(&guard, &["rm", &id]), format!("{id}\n"));
        assert_eq!(std::fs::read_to_string(share.join("new")).unwrap(), "x");
        nothing_left(&guard);
    });
}

#[test]
fn json_has_the_path_and_method_of_each_placement() {
    privileged!(guard, {
        share(&guard);
        guard.file("image", "");
        let id = create(&guard, &[]);
        let files = ["image=a/copy:copy", "share:bind", "/dev/null"];
        let placements: serde_json::Value =
            serde_json::from_str(&said(&guard, &[&["place", &id, "--json"], &files[..]].concat())).unwrap();
        let row = |source: &str, path: &str, how: &str| json!({"source": source, "path": path, "how": how});
        let wanted = [
            row("image", "/a/copy", "copy"),
            row("share", "/share", "bind"),
            row("/dev/null", "/null", "node"),
        ];
        assert_eq!(placements, json!(wanted));
        assert_eq!(said(&guard, &["unplace", &id, "/a/copy", "share"]), "/a/copy\n/share\n");
        refused(
            &guard,
            &["unplace", &id, "share"],
            "'/share' was not placed into the jail; list the placed paths with `stockade inspect`",
        );
        let line = "'../x' is not a path inside a jail; use one without '..'";
        refused(&guard, &["unplace", &id, "../x"], line);
        said(&guard, &["rm", &id]);
        assert!(guard.directory().join("share/file").exists());
        nothing_left(&guard);
    });
}

#[test]
fn a_shared_log_is_one_file_inside_and_outside() {
    privileged!(guard, {
        let (log, text) = (guard.file("vm.log", ""), "write=/logs/vm.log=from the VMM");
        let output = with_jail(&guard, "run", &["--share", "vm.log=logs/vm.log", "--", text]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "from the VMM");
        let file = guard.file("jail.toml", "[[jail]]\nshare = [\"vm.log=logs/vm.log\"]\n");
        let described = [
            format!("id = \"{}\"", guard.named("jail")),
            format!("exec-file = \"{}\"", program("stockade-probe").display()),
            format!("chroot-base-dir = \"{}\"", guard.base().display()),
            "arguments = [\"write=/logs/vm.log=again\"]".to_owned(),
        ];
        let text = std::fs::read_to_string(&file).unwrap() + &described.join("\n") + "\n";
        std::fs::write(&file, text).unwrap();
        assert!(said(&guard, &["plan", "-f", "jail.toml"]).contains("a hard link shared with"));
        said(&guard, &["run", "-f", "jail.toml"]);
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "again");
        nothing_left(&guard);
    });
}

#[test]
fn an_owner_is_chosen_by_a_flag() {
    privileged!(guard, {
        use std::os::unix::fs::MetadataExt;
        guard.file("image", "");
        let id = create(&guard, &[]);
        said(&guard, &["place", &id, "image", "--owner", "77:78", "--how", "copy"]);
        let placed = guard.base().join("stockade-probe").join(&id).join("root/image");
        let facts = placed.metadata().unwrap();
        assert_eq!((facts.uid(), facts.gid()), (77, 78));
        let (user, group) = (
            "is not a user ID; use 0 to 4294967294, or a name in '/etc/passwd'",
            "is not a group ID; use 0 to 4294967294, or a name in '/etc/group'",
        );
        for (wrong, line) in [
            ("77", "'77' is not USER:GROUP; use for example 1234:1234".to_owned()),
            ("77:", format!("'' {group}")),
            ("77:78:79", format!("'78:79' {group}")),
            (":", format!("'' {user}")),
        ] {
            refused(&guard, &["place", &id, "image", "--owner", wrong], &format!("--owner: {line}"));
        }
        said(&guard, &["place", &id, "image=other", "--owner", "root:root", "--how", "copy"]);
        said(&guard, &["rm", &id]);
    });
}

#[test]
fn a_wrong_placement_is_refused_before_the_jail_is_created() {
    privileged!(guard, {
        share(&guard);
        guard.file("image", "");
        let options = "use one of ro, bind, copy, link, node, reflink, share";
        let cases = [
            (&["image:rw"][..], format!("--place image:rw: unknown option 'rw'; {options}")),
            (&["image=x:"], format!("--place image=x:: unknown option ''; {options}")),
            (&["image:bind:copy"], "--place image:bind:copy: options 'copy' and 'bind' exclude each other; use one".to_owned()),
            (&["image", "share/file=image"], "--place share/file: '/image' is already the path of 'image' in the jail; choose another name".to_owned()),
            (&["image=a/x", "share/file=/a//x"], "--place share/file: '/a/x' is already the path of 'image' in the jail; choose another name".to_owned()),
            (&["no:such"], format!("--place no:such: cannot open '{}/no:such': no such file or directory; check the path", guard.directory().display())),
        ];
        for (places, line) in &cases {
            let flags: Vec<&str> = places.iter().flat_map(|place| ["--place", *place]).collect();
            for (command, code) in [("run", 125), ("create", 1), ("plan", 1)] {
                let output = with_jail(&guard, command, &flags);
                assert_eq!((output.code, output.stderr), (code, format!("stockade: {line}\n")), "{command}");
                nothing_left(&guard);
            }
        }
        let id = create(&guard, &[]);
        for (places, line) in &cases {
            let line = line.replace("--place ", "");
            refused(&guard, &[&["place", &id], *places].concat(), &line);
        }
        refused(
            &guard,
            &["place", &id, "image", "--how", "move"],
            "invalid value 'move' for '--how <HOW>'; use one of auto, bind, copy, link, node, reflink, share",
        );
        said(&guard, &["rm", &id]);
    });
}

#[test]
fn a_plan_shows_where_a_bind_is_attached() {
    privileged!(guard, {
        let share = share(&guard);
        let plan = with_jail(&guard, "plan", &["--place", "share=s:bind:ro"]);
        assert_eq!(plan.code, 0);
        assert!(plan.stdout.contains(&format!("directory /s, a bind of {}, read-only\n", share.display())));
        let root = plan.stdout.find("go to the new root").unwrap();
        let attach = plan.stdout.find(&format!("attach {} at /s, read-only\n", share.display())).unwrap();
        let user = plan.stdout.find("set the user").unwrap();
        assert!(root < attach && attach < user, "{}", plan.stdout);
        nothing_left(&guard);
    });
}

#[test]
fn kill_and_gc_do_not_touch_bound_files() {
    privileged!(guard, {
        let share = share(&guard);
        let line = arguments(&guard, "run", &["--place", "share:bind", "--", "clock", "sleep"]);
        let mut run = Command::new(program("stockade"))
            .args(line.iter().map(AsRef::as_ref))
            .current_dir(guard.directory())
            .env("STOCKADE_STATE_DIR", guard.state())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let id = guard.named("jail");
        // Its first output shows that it runs: the state is `running` already while it waits for its release.
        std::io::Read::read_exact(run.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        run.kill().unwrap();
        run.wait().unwrap();
        said(&guard, &["kill", &id]);
        while said(&guard, &["ps"]).contains("running") {
            std::thread::yield_now();
        }
        said(&guard, &["gc"]);
        assert_eq!(std::fs::read_to_string(share.join("file")).unwrap(), "the host's");
        nothing_left(&guard);
    });
}

/// The number of bytes that the calls of a trace have copied.
fn bytes_copied(trace: &Path) -> u64 {
    let text = std::fs::read_to_string(trace).unwrap();
    text.lines().filter_map(|line| line.rsplit_once(" = ")?.1.parse::<u64>().ok()).sum()
}

#[test]
fn holes_of_sparse_files_are_not_read() {
    privileged!(guard, {
        use std::os::unix::fs::FileExt;
        let disk = std::fs::File::create(guard.directory().join("disk.img")).unwrap();
        let size: u64 = 10 << 30;
        disk.set_len(size).unwrap();
        for offset in [size / 2, size - 1] {
            disk.write_all_at(b"x", offset).unwrap();
        }
        let (id, trace) = (create(&guard, &[]), guard.directory().join("trace"));
        let mut strace = Command::new("strace");
        strace.args(["-qq", "-e", "trace=copy_file_range,sendfile,splice", "-o"]).arg(&trace);
        strace.arg(program("stockade")).args(["place", &id, "disk.img", "--how", "copy"]);
        strace.current_dir(guard.directory()).env("STOCKADE_STATE_DIR", guard.state());
        let output = run_with(&mut strace);
        assert_eq!((output.code, output.stdout.as_str()), (0, "/disk.img\n"), "is strace installed?");
        let copied = bytes_copied(&trace);
        tell(&format!("of a sparse image of 10 GiB {copied} bytes were copied"));
        assert!(0 < copied && copied <= 2 << 16, "{copied} bytes");
        said(&guard, &["rm", &id]);
    });
}

/// A world-readable set-uid file of root.
fn set_uid_file(guard: &Guard, name: &str) -> PathBuf {
    let file = guard.file(name, "");
    testkit::set_mode(&file, 0o4755);
    file
}

#[test]
fn removed_privileges_are_reported_once_by_each_command() {
    privileged!(guard, {
        let tool = set_uid_file(&guard, "tool").display().to_string();
        let vmm = guard.directory().join("vmm");
        std::fs::copy(program("stockade-probe"), &vmm).unwrap();
        testkit::set_mode(&vmm, 0o2755);
        testkit::give_capability(&vmm);
        let (vmm, base) = (vmm.display().to_string(), guard.base().display().to_string());
        let id = guard.named("jail");
        let jail = ["--id", &id, "--exec-file", &vmm, "--chroot-base-dir", &base, "--place", "tool:ro"];
        let without = |what: &str| format!("without the {what}");
        let (of_vmm, of_tool) = (
            without(&format!("set-gid bit and file capabilities of {vmm}")),
            without(&format!("set-uid bit of {tool}")),
        );
        let notes = format!("stockade: placed {of_vmm}\nstockade: placed {of_tool}\n");
        let output = stockade(&guard, &[&["run"], &jail[..], &["--", "exit=3"]].concat());
        assert_eq!((output.code, &output.stderr), (3, &notes));
        let plan = said(&guard, &[&["plan"], &jail[..]].concat());
        assert!(plan.contains(&format!("file /vmm, a copy of {vmm}, owner 1234:1234, {of_vmm}\n")), "{plan}");
        assert!(
            plan.contains(&format!("file /tool, a copy of {tool}, owner 0:1234, read-only, {of_tool}\n")),
            "{plan}"
        );
        let steps: serde_json::Value =
            serde_json::from_str(&said(&guard, &[&["plan", "--json"], &jail[..]].concat())).unwrap();
        let stripped: Vec<_> =
            steps.as_array().unwrap().iter().filter_map(|row| row.get("stripped")).cloned().collect();
        let of = |path: &str, privileges: &[&str]| json!({"path": path, "powers": privileges, "count": 1});
        assert_eq!(stripped, [of(&vmm, &["set-gid", "capabilities"]), of(&tool, &["set-uid"])]);
        let output = stockade(&guard, &[&["create"], &jail[..]].concat());
        assert_eq!((output.code, &output.stderr), (0, &notes));
        let output = stockade(&guard, &["place", &id, "--json", "tool=again"]);
        assert_eq!((output.code, output.stderr), (0, format!("stockade: placed {of_tool}\n")));
        let rows: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
        let row =
            json!({"source": "tool", "path": "/again", "how": "copy", "stripped": of(&tool, &["set-uid"])});
        assert_eq!(rows, json!([row]));
        let output = stockade(&guard, &["--quiet", "place", &id, "tool=quietly"]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        let line = format!(
            "tool: '{tool}' cannot be a hard link in the jail, which would keep its set-uid bit; copy it instead"
        );
        refused(&guard, &["place", &id, "tool=link:link:ro"], &line);
        said(&guard, &["rm", &id]);
        nothing_left(&guard);
    });
}

#[test]
fn unreadable_capabilities_count_as_capabilities() {
    use std::os::unix::fs::MetadataExt;
    privileged!(guard, {
        let image = guard.file("image", "");
        testkit::set_mode(&image, 0o644);
        let (id, file) = (create(&guard, &[]), image.display().to_string());
        let place = |what: &str| {
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o"]).arg(guard.directory().join("trace")).args(["-P", &file]);
            command.args(["-e", "inject=getxattr,fgetxattr:error=EIO"]).arg(program("stockade"));
            command.args(["place", &id, what]).env("STOCKADE_STATE_DIR", guard.state());
            run_with(command.current_dir(guard.directory()))
        };
        let unknown = "file capabilities (which cannot be read)";
        let output = place("image=link:link:ro");
        let line = format!(
            "stockade: image: '{file}' cannot be a hard link in the jail, which would keep its {unknown}; copy it instead\n"
        );
        assert_eq!((output.code, output.stderr), (1, line), "is strace installed?");
        let output = place("image:ro");
        let line = format!("stockade: placed without the {unknown} of {file}\n");
        assert_eq!((output.code, output.stdout.as_str(), output.stderr), (0, "/image\n", line));
        assert_eq!(image.metadata().unwrap().nlink(), 1, "a copy");
        said(&guard, &["rm", &id]);
    });
}
