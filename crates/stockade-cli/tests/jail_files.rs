//! Jail files: `run -f`, `create -f` and `plan -f`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testkit::{Guard, Output, command, privileged, program, run_with, said, stockade};

/// Writes a jail file to the test's directory. Its defaults are the probe and the test's base directory.
fn file(guard: &Guard, text: &str) -> String {
    let probe = program("stockade-probe");
    // The path of the base directory is relative to the file.
    let defaults = format!("[defaults]\nexec-file = \"{}\"\nchroot-base-dir = \"base\"\n", probe.display());
    let (more, jails) = text.split_once("[[jail]]").unwrap_or((text, ""));
    let text = format!("{defaults}{more}[[jail]]{jails}").replace("vm", guard.name());
    guard.file("jails.toml", &text).display().to_string()
}

fn nothing_left(guard: &Guard) {
    assert!(!guard.base().exists() && !guard.state().exists());
}

fn json(output: &str) -> Value {
    serde_json::from_str(output).unwrap_or_else(|e| panic!("{e}: {output}"))
}

/// A command that runs until a signal. Its first lines are already read.
struct Started(Child);

impl Started {
    fn new(guard: &Guard, arguments: &[&str], lines: usize) -> Self {
        Self::with(guard, arguments, lines, |command| command)
    }

    fn with(
        guard: &Guard,
        arguments: &[&str],
        lines: usize,
        more: impl Fn(&mut Command) -> &mut Command,
    ) -> Self {
        // A shell starts background jobs with SIGINT ignored, and the command would inherit that.
        let mut command = Command::new("env");
        command.arg("--default-signal").arg(program("stockade")).args(arguments);
        command.env("STOCKADE_STATE_DIR", guard.state());
        more(&mut command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut command = command.spawn().unwrap();
        let mut said = BufReader::new(command.stdout.as_mut().unwrap());
        for _ in 0..lines {
            said.read_line(&mut String::new()).unwrap();
        }
        Self(command)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.0.id().try_into().unwrap()).unwrap(), signal).unwrap();
    }

    fn end(mut self) -> (Option<i32>, String) {
        let complaints = std::io::read_to_string(self.0.stderr.take().unwrap()).unwrap();
        (self.0.wait().unwrap().code(), complaints)
    }
}

#[test]
fn a_file_with_one_jail_runs_like_its_flags() {
    privileged!(guard, {
        guard.file("image", "an image");
        let file = file(
            &guard,
            "[jail]\nid = 'vm-{index}'\nplace = ['image=drives/{id}.img:ro']\nuid = 4321\n\
             arguments = ['report', 'read=/drives/vm-1.img', 'no-such-action']\n",
        );
        let file = std::fs::read_to_string(&file).map(|text| {
            std::fs::write(&file, text.replace("[[jail]]", "")).unwrap();
            file
        });
        let output = stockade(&guard, &["run", "-f", &file.unwrap()]);
        assert_eq!(
            (output.code, output.stderr.as_str()),
            (2, "stockade-probe: unknown action 'no-such-action'\n")
        );
        let lines: Vec<Value> = output.stdout.lines().map(json).collect();
        assert_eq!((&lines[0]["uid"], &lines[1]["read"]), (&4321.into(), &"an image".into()));
        nothing_left(&guard);
    });
}

#[test]
fn a_file_has_the_plan_of_its_flags() {
    privileged!(guard, {
        guard.file("image", "an image");
        let at = |name: &str| guard.directory().join(name).display().to_string();
        let (base, image, id) = (at("base"), at("image=x:ro"), guard.named("1"));
        let probe = program("stockade-probe").display().to_string();
        let flags = [
            ["--id", &id],
            ["--exec-file", &probe],
            ["--chroot-base-dir", &base],
            ["--uid", "77"],
            ["--gid", "78"],
            ["--netns", &id],
            ["--cgroup", "pids.max=9"],
            ["--parent-cgroup", guard.name()],
            ["--resource-limit", "no-file=64"],
            ["--resource-limit", "fsize=1000"],
            ["--ramfs", "1M"],
            ["--place", &image],
            ["--profile", "firecracker"],
        ]
        .concat();
        let switches = ["--new-pid-ns", "--no-closure", "--daemonize", "--json", "--", "--config", "5"];
        let by_flags = json(&said(&guard, &[&["plan"], &flags[..], &switches].concat()));
        let file = file(
            &guard,
            "gid = 78\nresource-limit = { no-file = 9, fsize = 1000 }\n\
             [[jail]]\nid = 'vm-1'\nuid = 77\nnetns = '{id}'\ncgroup = { 'pids.max' = 9 }\nparent-cgroup = 'vm'\n\
             resource-limit = ['no-file=64']\nramfs = '1M'\nplace = ['image=x:ro']\nprofile = 'firecracker'\n\
             new-pid-ns = true\nno-closure = true\ndaemonize = true\narguments = ['--config', 5]\n",
        );
        let by_file = json(&said(&guard, &["plan", "--json", "-f", &file]));
        // The start time and the order of the limits differ.
        let texts = |steps: &Value| {
            let steps =
                steps.as_array().unwrap().iter().map(|step| step["text"].as_str().unwrap().to_owned());
            let steps = steps.filter(|text| !text.contains("--start-time-us"));
            steps.collect::<Vec<_>>()
        };
        assert_eq!(by_file[0]["id"], id.as_str());
        assert_eq!(texts(&by_file[0]["steps"]), texts(&by_flags));
        assert!(texts(&by_flags).len() > 20);
        nothing_left(&guard);
    });
}

#[test]
fn flags_override_a_file_with_one_jail() {
    privileged!(guard, {
        let image = guard.file("image", "an image").display().to_string();
        let one = file(
            &guard,
            "place = ['image=a']\n[[jail]]\nid = 'vm'\nuid = 5\nnetns = 'vm'\narguments = ['exit=9']\n",
        );
        let id = guard.named("other");
        let place = format!("{image}=b");
        let arguments = ["run", "--id", &id, "-f", &one, "--uid", "6", "--new-net-ns", "--place", &place];
        let vmm = ["--", "report", "read=/a", "read=/b"];
        let output = stockade(&guard, &[&arguments[..], &vmm].concat());
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        let lines: Vec<Value> = output.stdout.lines().map(json).collect();
        assert_eq!((&lines[0]["uid"], &lines[1], &lines[2]), (&6.into(), &lines[1], &lines[1]));
        let many = file(&guard, "[[jail]]\nid = 'vm-a'\n[[jail]]\nid = 'vm-b'\n");
        for (arguments, key) in [(&["--uid", "6"][..], "--uid"), (&["--", "exit=1"], "--")] {
            let output = stockade(&guard, &[&["run", "-f", &many], arguments].concat());
            let name = if key == "--" { "arguments" } else { "uid" };
            let line = format!(
                "stockade: {key}: ambiguous, because the files describe 2 jails; set `{name}` in '{many}' or select \
                 a jail with --only\n"
            );
            assert_eq!((output.code, output.stdout.as_str(), output.stderr), (125, "", line));
        }
        nothing_left(&guard);
    });
}

#[test]
fn jails_of_a_file_are_selected_by_id() {
    privileged!(guard, {
        let many = file(&guard, "[[jail]]\nid = 'vm-{index}'\ncount = 3\narguments = ['exit={index}']\n");
        let (id, other) = (guard.named("2"), guard.named("9"));
        let output = stockade(&guard, &["run", "-f", &many, "--only", &id]);
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (2, "", ""));
        // With one selected jail, flags override the file.
        let arguments = ["run", "-f", &many, "--only", &id, "--id", &other, "--", "exit=7"];
        assert_eq!(stockade(&guard, &arguments).code, 7);
        let output = stockade(&guard, &["plan", "-f", &many, "--only", &other]);
        let there = [1, 2, 3].map(|number| guard.named(&number.to_string())).join(", ");
        let line = format!("stockade: --only: the files describe no jail '{other}'; use one of {there}\n");
        assert_eq!((output.code, output.stderr), (1, line));
        nothing_left(&guard);
    });
}

#[test]
fn a_file_from_stdin_has_paths_in_the_working_directory() {
    privileged!(guard, {
        let text = std::fs::read(file(&guard, "[[jail]]\nid = 'vm'\narguments = ['exit=4']\n")).unwrap();
        let mut command = command(&guard, &["run", "-f", "-"]);
        let command = command.current_dir(guard.directory()).stdin(Stdio::piped());
        let mut command = command.spawn().unwrap();
        command.stdin.take().unwrap().write_all(&text).unwrap();
        assert_eq!(command.wait().unwrap().code(), Some(4));
        nothing_left(&guard);
    });
}

#[test]
fn several_jails_have_prefixes_and_the_first_failures_code() {
    privileged!(guard, {
        let file = file(
            &guard,
            "[[jail]]\nid = 'vm-{index}'\ncount = 2\narguments = ['args', 'sleep-ms={index}00', 'exit={index}']\n\
             [[jail]]\nid = 'vm-last-one'\narguments = ['args', 'exit=0']\n",
        );
        let output = stockade(&guard, &["run", "-f", &file]);
        assert_eq!(output.code, 1);
        let (a, b, last) = (guard.named("1"), guard.named("2"), guard.named("last-one"));
        let complaints = format!(
            "stockade: the VMM of jail '{a}' has exited: exit code 1\n\
             stockade: the VMM of jail '{b}' has exited: exit code 2\n"
        );
        assert_eq!(output.stderr, complaints);
        let mut lines: Vec<&str> = output.stdout.lines().collect();
        lines.sort_unstable();
        let width = last.len();
        let wanted = [
            format!("{a:width$} | {{\"args\":[\"/stockade-probe\",\"args\",\"sleep-ms=100\",\"exit=1\"]}}"),
            format!("{b:width$} | {{\"args\":[\"/stockade-probe\",\"args\",\"sleep-ms=200\",\"exit=2\"]}}"),
            format!("{last} | {{\"args\":[\"/stockade-probe\",\"args\",\"exit=0\"]}}"),
        ];
        assert_eq!(lines, wanted);
        nothing_left(&guard);
    });
}

#[test]
fn a_signal_stops_all_vmms_or_kills_them_after_their_grace() {
    privileged!(guard, {
        let text = "[[jail]]\nid = 'vm-{index}'\ncount = 3\narguments = ['clock', 'sleep']\n";
        for signal in [Signal::INT, Signal::TERM] {
            let started = Started::new(&guard, &["run", "-f", &file(&guard, text)], 3);
            assert_eq!(said(&guard, &["ps"]).matches("running").count(), 3);
            started.signal(signal);
            assert_eq!(started.end(), (Some(143), String::new()), "{signal:?}");
            nothing_left(&guard);
        }
        let text = "[[jail]]\nid = 'vm-a'\narguments = ['ignore=15', 'clock', 'sleep']\ngrace = 0\n";
        let started = Started::new(&guard, &["run", "-f", &file(&guard, text)], 1);
        started.signal(Signal::TERM);
        assert_eq!(started.end().0, Some(137));
    });
}

#[test]
fn all_jails_are_created_or_none() {
    privileged!(guard, {
        let taken = file(&guard, "[[jail]]\nid = 'vm-3'\n");
        assert_eq!(said(&guard, &["create", "-f", &taken]), format!("{}\n", guard.named("3")));
        let before = guard.snapshot();
        let many = file(&guard, "[[jail]]\nid = 'vm-{index}'\ncount = 4\nnetns = '{id}'\n");
        let line = format!("stockade: jail '{}' exists; remove it or use another id\n", guard.named("3"));
        for (arguments, code) in [(&["create"][..], 1), (&["run"], 125), (&["run", "--detach"], 125)] {
            let output = stockade(&guard, &[arguments, &["-f", &many]].concat());
            assert_eq!(
                (output.code, output.stdout.as_str(), output.stderr.as_str()),
                (code, "", line.as_str())
            );
            assert_eq!(guard.snapshot(), before, "{arguments:?}");
        }
        said(&guard, &["rm", &guard.named("3")]);
        let ids: String = (1..=4).map(|number| guard.named(&number.to_string()) + "\n").collect();
        assert_eq!(said(&guard, &["create", "-f", &many]), ids);
        let ids: Vec<&str> = ids.lines().collect();
        said(&guard, &[&["rm"], &ids[..]].concat());
        nothing_left(&guard);
    });
}

#[test]
fn many_jails_raise_the_open_file_limit_or_are_refused() {
    privileged!(guard, {
        let many = file(&guard, "[[jail]]\nid = 'vm-{index}'\ncount = 24\narguments = ['exit=0']\n");
        let within = |limits: &str| {
            let line = format!("ulimit {limits}; exec {} run -f {many}", program("stockade").display());
            run_with(Command::new("sh").args(["-c", &line]).env("STOCKADE_STATE_DIR", guard.state()))
        };
        let output = within("-Sn 32");
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        let output = within("-n 100");
        let line = "24 jails need 208 open files, but the hard limit is 100; raise it with `ulimit -Hn 208` or run \
                    fewer jails at once\n";
        assert_eq!((output.code, output.stderr), (125, format!("stockade: {line}")));
        nothing_left(&guard);
    });
}

#[test]
fn a_vmm_that_cannot_start_removes_all_jails() {
    privileged!(guard, {
        let script = guard.file("script", "no program");
        let many = file(
            &guard,
            "[[jail]]\nid = 'vm-1'\narguments = ['sleep']\n[[jail]]\nid = 'vm-2'\nexec-file = 'script'\n",
        );
        for arguments in [&["run"][..], &["run", "--detach"]] {
            let output = stockade(&guard, &[arguments, &["-f", &many]].concat());
            let notification =
                format!("stockade: jail '{}': cannot execute in the jail: /script", guard.named("2"));
            assert!(output.stderr.starts_with(&notification), "{}", output.stderr);
            assert_eq!((output.code, output.stderr.lines().count()), (125, 1));
            nothing_left(&guard);
        }
        drop(script);
    });
}

#[test]
fn detached_jails_outlive_run() {
    privileged!(guard, {
        let many = file(
            &guard,
            "ready = 'run/{id}.socket'\n[[jail]]\nid = 'vm-{index}'\ncount = 2\n\
             arguments = ['listen=/run/{id}.socket', 'args', 'sleep']\n",
        );
        let ids = [guard.named("1"), guard.named("2")];
        let output = said(&guard, &["run", "--detach", "-f", &many]);
        assert_eq!(output, format!("{}\n{}\n", ids[0], ids[1]));
        assert!(said(&guard, &["logs", &ids[1]]).contains("\"args\""));
        said(&guard, &["stop", &ids[0]]);
        assert_eq!(said(&guard, &["wait", &ids[0]]), "143\n");
        assert!(said(&guard, &["ps"]).contains("exited"));
        assert_eq!(said(&guard, &["gc"]), "no abandoned jails\n");
        said(&guard, &["kill", &ids[1]]);
        assert_eq!(said(&guard, &["wait", "--file", &many]), "143\n137\n");
        assert_eq!(said(&guard, &["stop", "--file", &many]), output);
        assert_eq!(said(&guard, &["rm", "--file", &many]), output);
        nothing_left(&guard);
    });
}

#[test]
fn a_detached_jail_that_is_not_ready_is_removed() {
    privileged!(guard, {
        let id = guard.named("1");
        let refused = |arguments: &str, flags: &[&str], line: &str| {
            let one = file(&guard, &format!("[[jail]]\nid = 'vm-1'\narguments = {arguments}\n"));
            let output = stockade(&guard, &[&["run", "--detach", "-f", &one], flags].concat());
            assert_eq!((output.code, output.stdout.as_str()), (125, ""));
            assert_eq!(output.stderr, format!("stockade: {line}\n"));
            nothing_left(&guard);
        };
        let ready = ["--ready=run/x", "--timeout", "0"];
        let line = format!(
            "the VMM of jail '{id}' accepts no connection at '/run/x' after 0 s; give the VMM's socket to --ready, or raise --timeout"
        );
        refused("['sleep']", &ready, &line);
        let line = format!(
            "the VMM of jail '{id}' exited before it was ready: exit code 2: stockade-probe: unknown action 'oh'"
        );
        refused("['oh']", &ready[..1], &line);
        refused(
            "['sleep']",
            &["--ready"],
            "--ready: the profile 'plain' of 'stockade-probe' has no socket; choose another, as in --profile \
             firecracker, or name the socket, as in --ready=run/vmm.sock",
        );
    });
}

#[test]
fn the_state_directory_of_a_file_applies_to_its_jails() {
    privileged!(guard, {
        let one = file(&guard, "[[jail]]\nid = 'vm-1'\nstate-dir = 'state'\n");
        let alone = |arguments: &[&str]| {
            let mut command = command(&guard, arguments);
            let output = run_with(command.env_remove("STOCKADE_STATE_DIR"));
            assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{arguments:?}");
        };
        alone(&["create", "-f", &one]);
        assert!(said(&guard, &["ps"]).contains("created"));
        alone(&["rm", "--file", &one]);
        nothing_left(&guard);
        let two = file(&guard, "[[jail]]\nid = 'vm-1'\n[[jail]]\nid = 'vm-2'\nstate-dir = 'x'\n");
        let output = stockade(&guard, &["rm", "--file", &two]);
        let line = "8: state-dir: the jails are in several state directories; name them by their ids\n";
        assert_eq!((output.code, output.stderr), (1, format!("stockade: {two}:{line}")));
    });
}

#[test]
fn a_signal_while_vmms_get_ready_removes_their_jails() {
    privileged!(guard, {
        let one = file(&guard, "[[jail]]\nid = 'vm-1'\narguments = ['clock', 'sleep']\n");
        let started = Started::new(&guard, &["run", "--ready=run/x", "-f", &one], 1);
        started.signal(Signal::INT);
        let line = "stockade: stopped by a signal before all VMMs were ready\n".to_owned();
        assert_eq!(started.end(), (Some(125), line));
        nothing_left(&guard);
    });
}

#[test]
fn plan_shows_how_an_existing_jail_differs() {
    privileged!(guard, {
        guard.file("image", "an image");
        let text = "netns = '{id}'\ncgroup = { 'pids.max' = 9 }\nparent-cgroup = 'vm'\nplace = ['image']\n\
                    [[jail]]\nid = 'vm-1'\n[[jail]]\nid = 'vm-2'\n";
        let one = file(&guard, &text.replace("[[jail]]\nid = 'vm-2'\n", ""));
        said(&guard, &["create", "-f", &one]);
        let id = guard.named("1");
        let same = said(&guard, &["plan", "-f", &one]);
        assert!(same.ends_with(&format!("jail '{id}' exists (created) and is as described\n")), "{same}");
        let changed = text.replace("= 9", "= 10").replace("'image'", "'image:ro', 'image=b'");
        let changed =
            file(&guard, &changed.replace("id = 'vm-1'", "id = 'vm-1'\nuid = 5\nnew-pid-ns = true"));
        let before = guard.snapshot();
        let notification = stockade(&guard, &["plan", "-f", &changed]);
        let planned = stockade(&guard, &["plan", "--json", "-f", &changed]);
        assert_eq!(guard.snapshot(), before);
        assert_eq!((notification.code, planned.code), (2, 2));
        let image = guard.directory().join("image").display().to_string();
        let wanted = [
            "cgroup: [\"pids.max=9\"] → [\"pids.max=10\"]".to_owned(),
            "new-pid-ns: false → true".to_owned(),
            format!("place /b: nothing → {image}, owner 5:1234"),
            format!("place /image: {image}, owner 1234:1234 → {image}, owner 0:1234, read-only"),
            "uid: 1234 → 5".to_owned(),
        ];
        let head = format!("jail '{id}' exists (created) and differs (is → would be):\n");
        let shown = notification.stdout.split_once(&head).unwrap().1;
        let shown: Vec<&str> =
            shown.lines().take_while(|line| line.starts_with(' ')).map(str::trim).collect();
        assert_eq!(shown, wanted);
        let planned = json(&planned.stdout);
        assert_eq!((&planned[0]["exists"], &planned[1]["exists"]), (&"created".into(), &Value::Null));
        let uid = serde_json::json!({ "field": "uid", "is": "1234", "would_be": "5" });
        assert_eq!(planned[0]["differences"][4], uid);
        assert_eq!(planned[1]["differences"], serde_json::json!([]));
        assert!(planned[1]["steps"].as_array().unwrap().len() > 20);
        said(&guard, &["rm", &id]);
        nothing_left(&guard);
    });
}

#[test]
fn a_mistake_is_one_line_with_its_file_and_line() {
    privileged!(guard, {
        guard.file("image", "");
        // The text follows three lines of defaults.
        for (text, said) in [
            ("[[jail]]\nid = 'vm'\ncgrop = ['pids.max=1']", "6: unknown key `cgrop`; did you mean `cgroup`?"),
            ("exec_file = 'x'\n[[jail]]\n", "4: unknown key `exec_file`; did you mean `exec-file`?"),
            ("[jial]\nid = 'x'\n[[jail]]", "4: unknown table `jial`; did you mean `jail`?"),
            ("[[jail]]\nnew-pid-ns = 'yes'", "5: `new-pid-ns` must be true or false, not a string"),
            ("[[jail]]\nplace = 'image'", "5: `place` must be an array such as [\"a\", \"b\"], not a string"),
            (
                "[[jail]]\nplace = [\n'image',\n1.5]",
                "7: `place` must contain strings and integers, not a float",
            ),
            ("[[jail]]\nid = 'vm'\nid = 'b'", "6: duplicate key `id`"),
            ("[[jail]]\nid = 'vm'\narguments = [\"a\\u0000\"]", "6: `arguments` contains a NUL character"),
            ("[[jail]]\nid = x", "5: string values must be quoted, expected literal string"),
            ("[[jail]]\nuid = 4", "4: the jail needs `id`"),
            (
                "[[jail]]\nid = 'v_m'",
                "5: id: invalid character '_' at position 2; use letters, digits and '-'",
            ),
            (
                "[[jail]]\nid = 'vm'\ncgroup = [\n'pids.max=1',\n'pids']",
                "8: cgroup: 'pids' is not FILE=VALUE; use for example pids.max=64",
            ),
            (
                "[[jail]]\nid = 'vm'\nnetns = 'a'\nnew-net-ns = true",
                "4: `netns` cannot be used with `new-net-ns`; remove one of them",
            ),
            ("[[jail]]\nid = 'vm'\ntimeout = 3", "4: the jail needs `ready` with its other keys"),
            (
                "[[jail]]\nid = 'vm'\ngrace = 'x'",
                "6: grace: invalid value 'x': not a duration; use seconds, or a number with ms, s, m, h or d such as 0.2, 500ms or 1m",
            ),
            (
                "[[jail]]\nid = 'vm'\nplace = ['image',\n'image=b', 'image=b']",
                "7: place DIR/image: '/b' is already the path of 'DIR/image' in the jail; choose another name",
            ),
            (
                "[[jail]]\nid = 'vm'\nplace = ['image', 'none=x']",
                "6: place DIR/none: cannot open 'DIR/none': no such file or directory; check the path",
            ),
            (
                "[[jail]]\nid = 'vm'\ncount = 3",
                "6: `count`: each jail needs a unique id; use {index} in `id`, as in \"vm-{index}\"",
            ),
            ("[[jail]]\nid = 'vm'\ncount = 0", "6: `count` must be an integer from 1 to 1000"),
            (
                "[[jail]]\nid = 'vm'\n[[jail]]\nid = 'vm'",
                "7: id: 'vm' is already the id of the jail in DIR/jails.toml:4",
            ),
            (
                "[[jail]]\nid = 'vm'\n[[jail]]\nid = 'vmb'\nready = '../x'",
                "8: ready: '../x' is not a path inside a jail; use one without '..'",
            ),
        ] {
            let path = file(&guard, text);
            let directory = guard.directory().display().to_string();
            let said = said.replace("DIR", &directory).replace("vm", guard.name());
            let output = stockade(&guard, &["run", "-f", &path]);
            assert_eq!((output.code, output.stdout.as_str()), (125, ""), "{text}");
            assert_eq!(output.stderr, format!("stockade: {path}:{said}\n"));
            nothing_left(&guard);
        }
    });
}

#[test]
fn an_unreadable_file_is_one_line() {
    privileged!(guard, {
        let empty = guard.file("empty.toml", "").display().to_string();
        for (path, said) in [
            (
                "/no/such.toml",
                "--file: cannot read '/no/such.toml': no such file or directory; check the path".to_owned(),
            ),
            ("/", "--file: cannot read '/': is a directory; name a file".to_owned()),
            (&empty, format!("{empty}: the file describes no jail; add a table [[jail]]")),
        ] {
            let output = stockade(&guard, &["plan", "-f", path]);
            assert_eq!((output.code, output.stderr), (1, format!("stockade: {said}\n")));
        }
    });
}

/// The next notification of a service manager.
fn notification(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned()
}

fn manager(guard: &Guard) -> (UnixDatagram, std::path::PathBuf) {
    let path = guard.directory().join("notify");
    let _ = std::fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (socket, path)
}

fn quiet(socket: &UnixDatagram) -> bool {
    socket.set_nonblocking(true).unwrap();
    let error = socket.recv(&mut [0; 512]).unwrap_err();
    socket.set_nonblocking(false).unwrap();
    error.kind() == std::io::ErrorKind::WouldBlock
}

#[test]
fn a_service_manager_is_notified_of_readiness_and_stop() {
    privileged!(guard, {
        let (socket, path) = manager(&guard);
        let slow = "[[jail]]\nid = 'vm-{index}'\ncount = 2\nready = 'run/x'\n\
                    arguments = ['clock', 'sleep-ms=300', 'listen=/run/x', 'sleep']\n";
        let slow = file(&guard, slow);
        let started =
            Started::with(&guard, &["run", "-f", &slow], 2, |command| command.env("NOTIFY_SOCKET", &path));
        assert!(quiet(&socket), "the VMMs run, and do not listen yet");
        assert_eq!(notification(&socket), "READY=1");
        started.signal(Signal::TERM);
        assert_eq!(notification(&socket), "STOPPING=1");
        assert_eq!(started.end().0, Some(143));
        let one = file(&guard, "[[jail]]\nid = 'vm-1'\narguments = ['sleep']\n");
        let output: Output =
            run_with(command(&guard, &["run", "--detach", "-f", &one]).env("NOTIFY_SOCKET", &path));
        assert_eq!(output.code, 0, "{}", output.stderr);
        let id = guard.named("1");
        let vmm = json(&said(&guard, &["inspect", "--json", &id]))["vmm"]["pid"].clone();
        assert_eq!(notification(&socket), format!("MAINPID={vmm}\nREADY=1"));
        said(&guard, &["rm", "--force", &id]);
        assert!(quiet(&socket));
    });
}
