//! Wrong input: one line that names the flag or file and the cause, an exit code for it, and nothing made.
#![allow(clippy::unwrap_used, missing_docs)]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::Command;

use testkit::{Guard, Output, privileged, program, run, run_with, said, stockade};

/// A command line that would work, as flags and values.
struct Line {
    flags: Vec<(&'static str, String)>,
}

impl Line {
    fn good(guard: &Guard) -> Self {
        let flags = vec![
            ("--id", guard.named("jail")),
            ("--exec-file", program("stockade-probe").display().to_string()),
            ("--chroot-base-dir", guard.base().display().to_string()),
            ("--state-dir", guard.state().display().to_string()),
        ];
        Self { flags }
    }

    fn with(mut self, flag: &'static str, value: impl Into<String>) -> Self {
        self.flags.retain(|(name, _)| *name != flag);
        self.flags.push((flag, value.into()));
        self
    }

    fn without(mut self, flag: &'static str) -> Self {
        self.flags.retain(|(name, _)| *name != flag);
        self
    }

    fn words(&self, command: &str) -> Vec<String> {
        let flags = self.flags.iter().flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()]);
        std::iter::once(command.to_owned()).chain(flags).collect()
    }

    fn run(&self) -> Output {
        run("stockade", &self.words("run"))
    }
}

/// Runs a wrong command line: it must say exactly this line and make nothing.
fn refused(guard: &Guard, line: &Line, said: &str) {
    let output = line.run();
    assert_eq!(output.stderr, format!("stockade: {said}\n"));
    assert_eq!((output.code, output.stdout.as_str()), (125, ""));
    nothing_made(guard);
}

fn nothing_made(guard: &Guard) {
    assert!(!guard.base().exists(), "the base was made");
    assert!(!guard.state().exists(), "the state directory was made");
}

#[test]
fn the_line_without_a_mistake_works() {
    privileged!(guard, {
        let output = Line::good(&guard).run();
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    });
}

#[test]
fn what_is_repeated_of_an_argument_neither_ends_the_line_nor_commands_the_terminal() {
    let argument = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let cases = [
        (vec![argument(b"nc-\n1")], r"unrecognized subcommand 'nc-\n1'"),
        (vec!["kill".into(), "vm".into(), "-s\x1b[2J".into()], r"--signal: \u{1b}[2J is not a signal"),
        (
            vec!["ps".into(), "--state-dir".into(), "/etc/passwd/\n".into()],
            r"--state-dir: Failed to canonicalize path /etc/passwd/\n: ",
        ),
        // A path may be any bytes.
        (
            vec!["inspect".into(), "--state-dir".into(), argument(b"/\xfe"), argument(b"a\xff")],
            r"argument 4, 'a\xff', is not UTF-8",
        ),
    ];
    for (words, line) in cases {
        let output = run("stockade", &words);
        assert!(output.stderr.starts_with(&format!("stockade: {line}")), "{words:?}: {output:?}");
        assert!(!output.stderr.trim_end_matches('\n').contains(char::is_control), "{words:?}: {output:?}");
        assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{words:?}");
    }
}

#[test]
fn an_unknown_flag_is_named_with_the_likeliest_meant() {
    privileged!(guard, {
        let mut words = Line::good(&guard).words("run");
        words.push("--exec-fil".into());
        let output = run("stockade", &words);
        assert_eq!(
            output.stderr,
            "stockade: unexpected argument '--exec-fil' found; did you mean '--exec-file'?\n"
        );
        assert_eq!(output.code, 125);
        nothing_made(&guard);
    });
}

#[test]
fn a_stray_word_is_taken_for_the_vmms() {
    privileged!(guard, {
        let words = Line::good(&guard).words("run");
        // The second is a little like --profile.
        for stray in ["boot", "--config-file"] {
            let output = run("stockade", &[&words[..], &[stray.into()]].concat());
            let said = format!(
                "stockade: unexpected argument '{stray}' found; arguments for the VMM go behind --\n"
            );
            assert_eq!((output.code, output.stderr), (125, said));
            nothing_made(&guard);
        }
        let output = run("stockade", &["ps", "boot"]);
        assert_eq!(output.stderr, "stockade: unexpected argument 'boot' found\n");
    });
}

#[test]
fn a_missing_flag_is_named() {
    privileged!(guard, {
        let line = Line::good(&guard).without("--id");
        refused(&guard, &line, "the following required arguments were not provided: --id <ID>");
    });
}

#[test]
fn an_unknown_command_is_named() {
    let output = run("stockade", &["runn"]);
    assert_eq!((output.code, output.stdout.as_str()), (1, ""));
    assert_eq!(output.stderr, "stockade: unrecognized subcommand 'runn'; did you mean 'run'?\n");
}

/// The command line is told to be wrong, and ends so.
fn ends(line: &str, end: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let output = run("stockade", &words);
    let code = if ["run", "exec"].iter().any(|word| line.starts_with(word)) { 125 } else { 1 };
    assert_eq!((output.code, output.stdout.as_str()), (code, ""), "{line}");
    assert_eq!(output.stderr.lines().count(), 1, "{line}");
    assert!(output.stderr.trim_end().ends_with(end), "{line}: {}", output.stderr);
}

#[test]
fn only_what_is_like_a_word_is_told_as_what_was_meant() {
    for (line, end) in [
        ("stopp", "'stopp'; did you mean 'stop'?"),
        ("logz", "'logz'; did you mean 'logs'?"),
        ("bogus", "unrecognized subcommand 'bogus'"),
        ("logs --since 1h vm", "unexpected argument '--since' found"),
        ("stop --time 5 vm", "did you mean '--timeout'?"),
        ("completions bsh", "did you mean 'bash'?"),
    ] {
        ends(line, end);
    }
}

#[test]
fn words_of_other_tools_are_understood() {
    for (line, end) in [
        ("ls", "'ls'; did you mean 'ps'?"),
        ("list", "did you mean 'ps'?"),
        ("remove", "did you mean 'rm'?"),
        ("delete", "did you mean 'rm'?"),
        ("status vm", "did you mean 'ps' or 'inspect'?"),
        ("prune", "did you mean 'gc'?"),
        ("pause vm", "'pause'; stockade pauses no VMM; its own API may"),
        ("images", "'images'; there are no images: files of the host are placed"),
        ("kill -9 vm", "'-9' found; a signal is given as -s 9 or -s KILL"),
        ("kill -TERM vm", "a signal is given as -s 9 or -s KILL"),
        ("logs --tail 5 vm", "did you mean '-n N'?"),
        ("logs -n -5 vm", "-n takes no negative number"),
        ("exec -it vm -- sh", "a terminal is taken as it is: leave it out"),
        ("exec -e A=b vm -- env", "did you mean '--env NAME=VALUE'?"),
        ("start --ready run/a.sock vm", "a socket is joined to its flag: --ready=run/a.sock"),
        ("start --ready vm a.socket", "a socket is joined to its flag: --ready=a.socket"),
        ("create --id vm --exec-file /bin/true --grace 5", "'--grace' found; it is a flag of run"),
        ("--state-dir /x ps", "--state-dir goes behind the command"),
        ("rm -f many.toml", "did you mean '--file many.toml'?"),
        ("start many.toml", "did you mean '--file many.toml'?"),
        ("run many.toml", "did you mean '-f many.toml'?"),
        ("run -f many.toml --config x", "arguments for the VMM go behind --"),
    ] {
        ends(line, end);
    }
    for (flags, end) in [
        ("-it", "a terminal is taken as it is: leave it out"),
        ("--volume /a:/b", "did you mean '--place SRC=NAME'?"),
        ("-v /a:/b", "files are placed by --place SRC=NAME; -v is --verbose"),
        ("--env A=b", "a VMM has an empty environment"),
        ("--name x", "did you mean '--id'?"),
        ("--rm", "run removes its jail by itself, unless it is detached"),
        ("--ready a.sock", "a socket is joined to its flag: --ready=a.sock"),
        ("--uid -1", "--uid takes no negative number"),
        // Those of Cloud Hypervisor.
        ("--memory size=1G", "arguments for the VMM go behind --"),
        ("--cpus boot=2", "arguments for the VMM go behind --"),
    ] {
        ends(&format!("run --id vm --exec-file /bin/true {flags}"), end);
    }
}

#[test]
fn a_name_behind_a_colon_is_told_as_one_behind_an_equals_sign() {
    privileged!(guard, {
        let line = Line::good(&guard).with("--place", "/etc/passwd:/passwd");
        let said = "--place /etc/passwd:/passwd: there is no such file; a name in the jail goes behind an equals \
                    sign: /etc/passwd=/passwd";
        refused(&guard, &line, said);
    });
}

#[test]
fn a_missing_executable_is_named() {
    privileged!(guard, {
        let line = Line::good(&guard).with("--exec-file", "/no/such/vmm");
        let said =
            "--exec-file: Failed to canonicalize path /no/such/vmm: No such file or directory (os error 2)";
        refused(&guard, &line, said);
    });
}

#[test]
fn a_directory_is_no_executable() {
    privileged!(guard, {
        refused(
            &guard,
            &Line::good(&guard).with("--exec-file", "/usr/bin"),
            "--exec-file: /usr/bin is not a file",
        );
    });
}

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
            ("--ramfs", "lots", "\"lots\" is not a size such as 1M"),
            ("--netns", "..", "Invalid network namespace name: \"..\""),
            (
                "--netns",
                "/run/netns/no-such",
                "Failed to canonicalize path /run/netns/no-such: No such file or directory (os error 2); \
                 a name without a path is made with the jail, ip netns add makes one that stays",
            ),
        ];
        for (flag, value, said) in cases {
            let mut words = Line::good(&guard).words("run");
            // With an equals sign, so that a value may begin with a dash.
            words.push(format!("{flag}={value}"));
            let output = run("stockade", &words);
            assert_eq!(output.stderr, format!("stockade: {flag}: {said}\n"));
            assert_eq!(output.code, 125);
            nothing_made(&guard);
        }
    });
}

#[test]
fn a_controller_that_is_not_there_is_named() {
    privileged!(guard, {
        let line = Line::good(&guard).with("--cgroup", "nosuch.max=1");
        let said = "--cgroup: Controller nosuch is unavailable; stockade doctor tells which are there";
        refused(&guard, &line, said);
    });
}

#[test]
fn a_base_that_cannot_be_one_is_named() {
    privileged!(guard, {
        let file = guard.file("file", "");
        let line = Line::good(&guard).with("--chroot-base-dir", file.display().to_string());
        refused(&guard, &line, &format!("--chroot-base-dir: {} is not a directory", file.display()));
        // /proc takes no directories, not even root's.
        let line = Line::good(&guard).with("--chroot-base-dir", "/proc/jails");
        let output = line.run();
        assert_eq!(output.code, 125);
        assert!(
            output.stderr.starts_with("stockade: failed to create directory /proc/jails"),
            "{}",
            output.stderr
        );
        assert_eq!(output.stderr.lines().count(), 1);
        nothing_made(&guard);
    });
}

#[test]
fn a_state_directory_that_cannot_be_one_is_named() {
    privileged!(guard, {
        let file = guard.file("file", "");
        let line = Line::good(&guard).with("--state-dir", file.display().to_string());
        refused(&guard, &line, &format!("--state-dir: {} is not a directory", file.display()));
    });
}

#[test]
fn a_file_that_cannot_be_placed_is_named_and_the_jail_is_gone() {
    privileged!(guard, {
        let line = Line::good(&guard).with("--place", "/no/such/image");
        let said = "--place /no/such/image: Failed to canonicalize path /no/such/image: No such file or directory (os error 2)";
        refused(&guard, &line, said);
        let line = Line::good(&guard).with("--place", "/etc/passwd=../escape");
        refused(&guard, &line, "--place /etc/passwd: \"../escape\" is not a path inside a jail");
        let name = OsString::from_vec(b"/etc/passwd=p\xff".to_vec());
        let words =
            Line::good(&guard).words("run").into_iter().map(Into::into).chain(["--place".into(), name]);
        let output = run("stockade", &words.collect::<Vec<OsString>>());
        let said = "stockade: --place /etc/passwd: p\u{fffd} is not UTF-8, as a jail's receipt is\n";
        assert_eq!((output.code, output.stderr.as_str()), (125, said));
        nothing_made(&guard);
        let socket = guard.directory().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let line = Line::good(&guard).with("--place", socket.display().to_string());
        refused(&guard, &line, &format!("--place {0}: {0} is not a file", socket.display()));
        drop(listener);
        let directory = guard.directory().join("directory");
        std::fs::create_dir(&directory).unwrap();
        let link = directory.join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        let line = Line::good(&guard).with("--place", directory.display().to_string());
        let said = format!(
            "--place {}: {} is a link to /etc/passwd, which is not in the directory that is placed",
            directory.display(),
            link.display()
        );
        refused(&guard, &line, &said);
    });
}

#[test]
fn a_vmm_that_cannot_be_executed_is_told_with_its_reason_and_leaves_nothing() {
    privileged!(guard, {
        let script: PathBuf = guard.file("script", "#!/no/such/interpreter\n");
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let line = Line::good(&guard).with("--exec-file", script.display().to_string());
        let said = format!(
            "--exec-file: {} is a script for /no/such/interpreter: \
             jail that program, and place the script as a file (see --no-closure)",
            script.display()
        );
        refused(&guard, &line, &said);
        let mut words = line.words("run");
        words.push("--no-closure".into());
        let output = run("stockade", &words);
        let said = "stockade: failed to execute in the jail: /script: No such file or directory (os error 2); \
                    the file is in the jail, so its interpreter is not: \
                    link it statically, or place its closure too\n";
        assert_eq!((output.code, output.stderr.as_str()), (125, said));
        nothing_made(&guard);
        let plain = guard.file("plain", "no program");
        let line = Line::good(&guard).with("--exec-file", plain.display().to_string());
        let said = "failed to execute in the jail: /plain: Permission denied (os error 13); \
                    is it executable, and its filesystem mounted without noexec?";
        refused(&guard, &line, said);
    });
}

#[test]
fn who_is_not_root_is_told_so() {
    privileged!(guard, {
        use std::os::unix::process::CommandExt;
        let (works, looks) = ("for namespaces, device nodes and owners", "to read the receipts");
        let alone = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for (command, what) in [
            (Line::good(&guard).words("run"), works),
            (alone(&["gc"]), works),
            (alone(&["demo"]), works),
            (alone(&["ps"]), looks),
            (alone(&["logs", "vm"]), looks),
        ] {
            let stockade = program("stockade");
            // The build's own directory may be closed to others; the program is opened before it is nobody's.
            let copy = guard.directory().join("stockade");
            std::fs::copy(&stockade, &copy).unwrap();
            let line = Line::good(&guard).with("--exec-file", "/bin/true").words("run");
            let words = if command[0] == "run" { line } else { command.clone() };
            let output = run_with(Command::new(&copy).args(&words).uid(65_534).gid(65_534));
            let said =
                format!("stockade: '{}' needs root, {what}; this is uid 65534: try sudo\n", command[0]);
            let code = if command[0] == "run" { 125 } else { 1 };
            assert_eq!((output.code, output.stderr), (code, said));
            nothing_made(&guard);
        }
    });
}

#[test]
fn a_cgroup_file_that_there_is_not_is_named_with_its_flag() {
    privileged!(guard, {
        let parent = guard.named("parent");
        let line = Line::good(&guard).with("--cgroup", "pids.maximum=1").with("--parent-cgroup", &parent);
        let output = line.run();
        assert_eq!(output.code, 125);
        assert!(output.stderr.starts_with("stockade: --cgroup: failed to open /"), "{output:?}");
        let end = "/pids.maximum: No such file or directory (os error 2); the controller has no such file on this \
                   host\n";
        assert!(output.stderr.ends_with(end), "{output:?}");
        nothing_made(&guard);
    });
}

#[test]
fn a_cgroup_file_of_the_other_version_is_named_with_its_flag() {
    privileged!(guard, {
        // Whichever this host has for memory: one of the two is of the other version.
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
        nothing_made(&guard);
    });
}

#[test]
fn an_id_in_use_is_told_with_what_can_be_done() {
    privileged!(guard, {
        let line = Line::good(&guard);
        let id = guard.named("jail");
        let made = run("stockade", &line.words("create"));
        assert_eq!((made.code, made.stderr.as_str()), (0, ""));
        let exists = format!("stockade: jail {id} exists already; remove it first, or choose another id\n");
        assert_eq!((line.run().code, line.run().stderr), (125, exists));
        let pid = said(&guard, &["start", &id, "--", "sleep"]);
        let runs = format!(
            "stockade: jail {id} is running as pid {}; stop it first, or choose another id\n",
            pid.trim()
        );
        assert_eq!((line.run().code, line.run().stderr), (125, runs));
        said(&guard, &["rm", "--force", &id]);
    });
}

#[test]
fn a_vmm_that_dies_at_once_is_told_with_how_it_ended_and_what_it_said() {
    privileged!(guard, {
        let id = guard.named("jail");
        assert_eq!(run("stockade", &Line::good(&guard).words("create")).code, 0);
        let died = stockade(&guard, &["start", &id, "--ready=run/api.sock", "--", "non\x1b[2J\nsense"]);
        let said_last = format!(
            "stockade: the VMM of jail {id} ended before it was ready: exit code 2: stockade-probe: unknown action \
             'non\\u{{1b}}[2J | sense'\n"
        );
        assert_eq!((died.code, died.stdout.as_str(), died.stderr), (1, "", said_last));
        said(&guard, &["rm", &id]);
    });
}

#[test]
fn a_base_without_execution_is_named() {
    privileged!(guard, {
        let base = guard.base();
        let inner =
            Line::good(&guard).words("run").iter().map(|word| format!("'{word}'")).collect::<Vec<_>>();
        let script = format!(
            "mkdir {0} && mount -t tmpfs -o noexec none {0} && exec {1} {2}",
            base.display(),
            program("stockade").display(),
            inner.join(" "),
        );
        let output = run_with(Command::new("unshare").args(["--mount", "sh", "-c", &script]));
        let said = format!(
            "stockade: failed to execute in the jail: /stockade-probe: Permission denied (os error 13); \
             {} is mounted noexec: choose another --chroot-base-dir, or mount it with exec\n",
            base.display()
        );
        assert_eq!((output.code, output.stderr), (125, said));
        std::fs::remove_dir(base).unwrap();
        assert!(!guard.state().exists());
    });
}

#[test]
fn a_path_that_is_too_long_is_refused_before_anything_is_made() {
    privileged!(guard, {
        let deep = format!("{}/{}", guard.directory().display(), vec!["x".repeat(200); 19].join("/"));
        let line = Line::good(&guard).with("--chroot-base-dir", &*deep);
        let length = deep.len() + "/stockade-probe/".len() + guard.named("jail").len() + "/root".len();
        let said = format!(
            "--chroot-base-dir: the jail's root would have a path of {length} bytes, and no more than 3839 can be: \
             choose a shorter directory"
        );
        refused(&guard, &line, &said);
        let wide = format!("/{}", "x".repeat(256));
        let line = Line::good(&guard).with("--chroot-base-dir", &*wide);
        let said = format!(
            "--chroot-base-dir: Failed to canonicalize path {wide}: File name too long (os error 36)"
        );
        refused(&guard, &line, &said);
    });
}

#[test]
fn a_host_without_kvm_is_told_to_who_runs_a_vmm_that_needs_it() {
    privileged!(guard, {
        let vmm = guard.directory().join("firecracker");
        std::fs::copy(program("stockade-probe"), &vmm).unwrap();
        let line = Line::good(&guard).with("--exec-file", vmm.display().to_string());
        let words: Vec<String> = line.words("run").iter().map(|word| format!("'{word}'")).collect();
        let command = format!("{} {} -- exit=3", program("stockade").display(), words.join(" "));
        // A /dev with nothing in it but what the command itself needs.
        let script = format!(
            "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9 && exec {command}"
        );
        let output = run_with(Command::new("unshare").args(["--mount", "sh", "-c", &script]));
        let said = "stockade: this host has no /dev/kvm, without which firecracker runs no guest: see stockade doctor\n";
        assert_eq!((output.code, output.stderr.as_str()), (3, said));
        nothing_made(&guard);
    });
}

#[test]
fn a_controller_of_the_other_version_is_named_with_the_way_out() {
    privileged!(guard, {
        let other = if testkit::unified_mount().is_some() { (1, "v1") } else { (2, "v2") };
        // Where nothing but version 2 is mounted there is no hierarchy of the other to look in.
        if other.0 == 1 {
            return;
        }
        let line = Line::good(&guard).with("--cgroup", "pids.max=5").with("--cgroup-version", "2");
        let said = "--cgroup: Controller pids is unavailable in version 2: this host has it in version 1; \
                    leave --cgroup-version out, or say 1";
        refused(&guard, &line, said);
    });
}

#[test]
fn a_value_that_the_kernel_refuses_is_named_with_its_flag() {
    privileged!(guard, {
        let parent = guard.named("parent");
        let line = Line::good(&guard).with("--cgroup", "pids.max=many").with("--parent-cgroup", &parent);
        refused(
            &guard,
            &line,
            "--cgroup: pids.max=many: the kernel refuses this value: Invalid argument (os error 22)",
        );
        let line = Line::good(&guard).with("--resource-limit", "no-file=99999999999");
        let said = "--resource-limit: failed to limit the number of descriptors to 99999999999: Operation not \
                    permitted (os error 1); no more can be had than stockade itself may (ulimit -H)";
        refused(&guard, &line, said);
        let line = Line::good(&guard).with("--netns", "/etc/passwd");
        let said = "--netns: failed to join network namespace /etc/passwd: Invalid argument (os error 22); it is no \
                    network namespace";
        refused(&guard, &line, said);
    });
}

#[test]
fn a_socket_that_nobody_could_connect_to_is_told_beforehand() {
    privileged!(guard, {
        // Known by its name to have a socket.
        let vmm = guard.directory().join("firecracker");
        std::fs::copy(program("stockade-probe"), &vmm).unwrap();
        let base = guard.base().join("b".repeat(90)).display().to_string();
        let mut line = Line::good(&guard).with("--exec-file", vmm.display().to_string());
        line = line.with("--chroot-base-dir", &base);
        let output = run("stockade", &[line.words("run"), vec!["--".into(), "exit=0".into()]].concat());
        let length = format!("{base}/firecracker/{}/root/run/firecracker.socket", guard.named("jail")).len();
        let said = format!(
            "stockade: the VMM's socket /run/firecracker.socket has a path of {length} bytes on the host, and nobody \
             can connect to one of more than 107: choose a shorter --chroot-base-dir or --id\n"
        );
        assert_eq!((output.code, output.stderr), (0, said));
        std::fs::remove_file(&vmm).unwrap();
        nothing_made(&guard);
    });
}
