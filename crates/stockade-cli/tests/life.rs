//! `run`, `plan`, `ps` and `gc` in an operator's use.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testkit::{Guard, Output, privileged, program, run, run_with};

fn arguments(guard: &Guard, command: &str, id: &str, flags: &[&str], vmm: &[&str]) -> Vec<String> {
    let (base, state) = (guard.base().display().to_string(), guard.state().display().to_string());
    let probe = program("stockade-probe").display().to_string();
    let id = guard.named(id);
    let fixed =
        [command, "--id", &id, "--exec-file", &probe, "--chroot-base-dir", &base, "--state-dir", &state];
    let all = fixed.iter().chain(flags).copied().chain(["--"]).chain(vmm.iter().copied());
    all.map(str::to_owned).collect()
}

fn with_state(guard: &Guard, arguments: &[&str]) -> Output {
    run_with(Command::new(program("stockade")).args(arguments).env("STOCKADE_STATE_DIR", guard.state()))
}

fn json(guard: &Guard, arguments: &[&str]) -> Value {
    let output = with_state(guard, arguments);
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {output:?}"))
}

/// A `stockade run` whose VMM has printed its first line.
struct Started {
    command: Child,
    said: BufReader<ChildStdout>,
}

impl Started {
    fn new(guard: &Guard, id: &str, flags: &[&str], vmm: &[&str]) -> Self {
        // A shell starts background jobs with SIGINT ignored, and the command would inherit that.
        let mut command = Command::new("env")
            .arg("--default-signal")
            .arg(program("stockade"))
            .args(arguments(guard, "run", id, flags, vmm))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(command.stdout.take().unwrap());
        said.read_line(&mut String::new()).unwrap();
        Self { command, said }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.command.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the command. Returns its exit code and stderr.
    fn end(mut self) -> (Option<i32>, String) {
        drop(self.said);
        let complaints = std::io::read_to_string(self.command.stderr.take().unwrap()).unwrap();
        (self.command.wait().unwrap().code(), complaints)
    }

    /// Kills the command with SIGKILL. The VMM runs on and holds the pipes.
    fn crash(mut self) {
        self.command.kill().unwrap();
        assert_eq!(self.command.wait().unwrap().signal(), Some(9));
    }
}

#[test]
fn run_returns_the_vmms_exit_code() {
    privileged!(guard, {
        for (word, code) in
            [("exit=0", 0), ("exit=1", 1), ("exit=77", 77), ("signal=9", 137), ("signal=15", 143)]
        {
            let output = run("stockade", &arguments(&guard, "run", "code", &[], &[word]));
            // A signal is reported, because the exit code alone does not show it.
            let said = match word.strip_prefix("signal=") {
                Some(signal) => {
                    let id = guard.named("code");
                    format!("stockade: the VMM of jail '{id}' has exited: killed by signal {signal}\n")
                }
                None => String::new(),
            };
            assert_eq!((output.code, output.stderr), (code, said), "{word}");
        }
    });
}

#[test]
fn run_passes_on_the_vmms_output() {
    privileged!(guard, {
        let output = run("stockade", &arguments(&guard, "run", "out", &[], &["args", "no-such-action"]));
        assert_eq!(output.stdout, "{\"args\":[\"/stockade-probe\",\"args\",\"no-such-action\"]}\n");
        assert_eq!(
            (output.code, output.stderr.as_str()),
            (2, "stockade-probe: unknown action 'no-such-action'\n")
        );
    });
}

#[test]
fn every_flag_has_its_effect() {
    privileged!(guard, {
        let image = guard.file("image", "an image");
        let (net, place) = (guard.named("net"), format!("{}=drives/root.img", image.display()));
        let flags = [
            "--uid",
            "12345",
            "--gid",
            "12346",
            "--netns",
            &net,
            "--new-pid-ns",
            "--ramfs",
            "1M",
            "--place",
            &place,
            "--cgroup",
            "pids.max=32",
            "--parent-cgroup",
            guard.name(),
            "--resource-limit",
            "no-file=64",
            "--profile",
            "firecracker",
        ];
        let output = run(
            "stockade",
            &arguments(&guard, "run", "all", &flags, &["report", "limits", "read=/drives/root.img"]),
        );
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        let said: Vec<Value> =
            output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((said[0]["uid"].as_u64(), said[0]["gid"].as_u64()), (Some(12_345), Some(12_346)));
        assert_eq!((&said[0]["pid"], &said[0]["network"]), (&1.into(), &serde_json::json!(["lo"])));
        let points: Vec<&str> = said[0]["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|mount| mount["point"].as_str().unwrap())
            .collect();
        assert_eq!(points, ["/", "/ramfs"]);
        assert_eq!(said[1]["limits"]["no-file"], serde_json::json!([64, 64]));
        assert_eq!(said[2]["read"], "an image");
    });
}

#[test]
fn ctrl_c_and_sigterm_stop_the_vmm_and_remove_the_jail() {
    privileged!(guard, {
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            let started = Started::new(&guard, "stop", &[], &["clock", "sleep"]);
            started.signal(signal);
            let (code, complaints) = started.end();
            assert_eq!((code, complaints.as_str()), (Some(143), ""), "{signal:?}");
            assert!(!guard.base().exists() && !guard.state().exists());
        }
    });
}

#[test]
fn a_vmm_is_killed_by_the_second_signal_or_after_its_grace() {
    privileged!(guard, {
        let started = Started::new(&guard, "second", &["--grace", "600"], &["ignore=15", "clock", "sleep"]);
        started.signal(Signal::INT);
        started.signal(Signal::TERM);
        assert_eq!(started.end().0, Some(137));
        let started = Started::new(&guard, "grace", &["--grace", "0"], &["ignore=15", "clock", "sleep"]);
        started.signal(Signal::INT);
        assert_eq!(started.end().0, Some(137));
        // The first process of a pid namespace ignores SIGTERM without a handler.
        let started = Started::new(&guard, "init", &["--grace", "0", "--new-pid-ns"], &["clock", "sleep"]);
        started.signal(Signal::INT);
        assert_eq!(started.end().0, Some(137));
    });
}

#[test]
fn a_running_jail_is_listed_and_its_id_refused() {
    privileged!(guard, {
        let started = Started::new(&guard, "busy", &[], &["clock", "sleep"]);
        let jails = json(&guard, &["ps", "--json"]);
        let [jail] = &jails.as_array().unwrap()[..] else { panic!("{jails}") };
        assert_eq!((&jail["id"], &jail["state"]), (&guard.named("busy").into(), &"running".into()));
        let pid = jail["pid"].as_i64().unwrap();
        assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "stockade-probe\n");
        assert!(jail["age_seconds"].as_u64().unwrap() < 60);

        let table = with_state(&guard, &["ps"]).stdout;
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["ID", "PID", "STATE", "EXIT", "AGE", "VMM"]);
        assert_eq!(rows[1][..3], [guard.named("busy"), pid.to_string(), "running".to_owned()]);

        let refused = run("stockade", &arguments(&guard, "run", "busy", &[], &[]));
        let said = format!(
            "stockade: jail '{}' is running as pid {pid}; stop it first or use another id\n",
            guard.named("busy")
        );
        assert_eq!((refused.code, refused.stderr), (125, said));
        assert_eq!(json(&guard, &["gc", "--json"]), serde_json::json!({ "jails": [], "problems": [] }));
        started.signal(Signal::TERM);
        assert_eq!(started.end().0, Some(143));
        assert_eq!(json(&guard, &["ps", "--json"]), serde_json::json!([]));
    });
}

#[test]
fn leftovers_of_a_killed_run_are_found_and_removed() {
    privileged!(guard, {
        let net = guard.named("net");
        let flags =
            ["--netns", &net, "--ramfs", "1M", "--cgroup", "pids.max=9", "--parent-cgroup", guard.name()];
        let started = Started::new(&guard, "crash", &flags, &["clock", "sleep"]);
        started.crash();
        // The VMM still runs, so gc removes nothing.
        let jails = json(&guard, &["ps", "--json"]);
        assert_eq!(jails[0]["state"], "running");
        assert_eq!(with_state(&guard, &["gc"]).stdout, "no abandoned jails\n");
        let vmm = Pid::from_raw(jails[0]["pid"].as_i64().unwrap().try_into().unwrap()).unwrap();
        kill_process(vmm, Signal::KILL).unwrap();
        // The VMM is an orphan, and its new parent is this process.
        rustix::process::waitpid(Some(vmm), rustix::process::WaitOptions::empty()).unwrap();

        assert_eq!(json(&guard, &["ps", "--json"])[0]["state"], "abandoned");
        let before = guard.snapshot();
        let dry = with_state(&guard, &["gc", "--dry-run"]);
        assert!(dry.stdout.contains(&format!("would remove network namespace {net}")), "{dry:?}");
        assert_eq!(guard.snapshot(), before, "a dry run changes nothing");
        let report = json(&guard, &["gc", "--json"]);
        let removed: Vec<&str> = report["jails"][0]["removed"]
            .as_array()
            .unwrap()
            .iter()
            .map(|what| what.as_str().unwrap())
            .collect();
        for what in ["network namespace", "ramfs", "cgroup", "jail directory", "character device /dev/kvm"] {
            assert!(removed.iter().any(|removed| removed.starts_with(what)), "{what}: {removed:?}");
        }
        assert_eq!(report["jails"][0]["left"], serde_json::json!([]));
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}

#[test]
fn run_takes_over_the_id_of_an_abandoned_jail() {
    privileged!(guard, {
        // The abandoned jail's namespace is removed before the next jail is created, so it cannot be joined.
        let net = guard.named("net");
        let started = Started::new(&guard, "again", &["--netns", &net], &["clock", "sleep"]);
        started.crash();
        let pid = json(&guard, &["ps", "--json"])[0]["pid"].as_i64().unwrap();
        let vmm = Pid::from_raw(pid.try_into().unwrap()).unwrap();
        kill_process(vmm, Signal::KILL).unwrap();
        rustix::process::waitpid(Some(vmm), rustix::process::WaitOptions::empty()).unwrap();
        let output = run("stockade", &arguments(&guard, "run", "again", &["--netns", &net], &["exit=4"]));
        let said = format!("stockade: took over jail '{}', abandoned by a crash, ", guard.named("again"));
        assert!(output.stderr.starts_with(&said) && output.stderr.lines().count() == 1, "{output:?}");
        assert_eq!(output.code, 4);
    });
}

#[test]
fn a_daemonized_jail_outlives_run_and_is_removed_by_gc() {
    privileged!(guard, {
        let output = run("stockade", &arguments(&guard, "run", "daemon", &["--daemonize"], &["sleep"]));
        assert_eq!((output.code, output.stderr.as_str()), (0, ""));
        let (id, pid) = output.stdout.trim_end().split_once(' ').unwrap();
        assert_eq!(id, guard.named("daemon"));
        let streams = [0, 1, 2].map(|fd| std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap());
        assert_eq!(streams, [std::path::Path::new("/dev/null"); 3]);
        let pid_file = format!("{}/stockade-probe/{id}/root/stockade-probe.pid", guard.base().display());
        assert_eq!(std::fs::read_to_string(pid_file).unwrap(), pid);
        let vmm = Pid::from_raw(pid.parse().unwrap()).unwrap();
        kill_process(vmm, Signal::TERM).unwrap();
        rustix::process::waitpid(Some(vmm), rustix::process::WaitOptions::empty()).unwrap();
        assert_eq!(with_state(&guard, &["gc"]).code, 0);
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}

#[test]
fn plan_prints_every_step_and_changes_nothing() {
    privileged!(guard, {
        let net = guard.named("net");
        let flags = ["--netns", &net, "--ramfs", "1M", "--cgroup", "pids.max=9", "--place", "/etc/passwd"];
        let before = guard.snapshot();
        let text = run("stockade", &arguments(&guard, "plan", "plan", &flags, &["x"]));
        let data =
            run("stockade", &arguments(&guard, "plan", "plan", &[&flags[..], &["--json"]].concat(), &["x"]));
        assert_eq!(guard.snapshot(), before);
        assert!(!guard.base().exists() && !guard.state().exists());
        assert_eq!((text.code, data.code), (0, 0), "{text:?} {data:?}");
        let steps: Vec<Value> = serde_json::from_str(&data.stdout).unwrap();
        for (step, number) in steps.iter().zip(1..) {
            assert_eq!(step["number"], number);
            let line = format!("{number:4}  {}", step["text"].as_str().unwrap());
            assert!(text.stdout.lines().any(|printed| printed == line), "{line}");
        }
        let kinds: Vec<&str> = steps.iter().map(|step| step["step"]["kind"].as_str().unwrap()).collect();
        for kind in [
            "shared-directory",
            "jail-directory",
            "placed-file",
            "folder",
            "device-node",
            "ramfs",
            "named-netns",
        ] {
            assert!(kinds.contains(&kind), "{kind}: {kinds:?}");
        }
        assert_eq!(kinds.last(), Some(&"execute"));
        assert!(text.stdout.contains("copy of /etc/passwd"), "{}", text.stdout);
    });
}

#[test]
fn a_closed_stdout_is_no_failure() {
    privileged!(guard, {
        for command in ["ps", "gc", "plan --id x --exec-file /bin/true", "--help"] {
            let line = format!("{} {command} | true", program("stockade").display());
            let output =
                run_with(Command::new("sh").args(["-c", &line]).env("STOCKADE_STATE_DIR", guard.state()));
            assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{command}");
        }
    });
}

#[test]
fn a_network_namespace_is_joined_by_a_path_in_proc() {
    privileged!(guard, {
        let mut unshared = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap();
        let path = format!("/proc/{}/ns/net", unshared.id());
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        while std::fs::read_link(&path).unwrap() == own {
            std::thread::yield_now();
        }
        let joined = Started::new(&guard, "net", &["--netns", &path], &["args", "sleep"]);
        let pid = json(&guard, &["ps", "--json"])[0]["pid"].clone();
        let namespace = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        assert_eq!(namespace, std::fs::read_link(&path).unwrap());
        joined.signal(Signal::TERM);
        assert_eq!(joined.end(), (Some(143), String::new()));
        unshared.kill().unwrap();
        unshared.wait().unwrap();
    });
}

#[test]
fn a_vmm_killed_by_its_memory_limit_is_reported() {
    privileged!(guard, {
        let file = if testkit::unified_mount().is_some() { "memory.max" } else { "memory.limit_in_bytes" };
        let (limit, parent) = (format!("{file}=8M"), guard.named("parent"));
        let flags = ["--cgroup", &limit, "--parent-cgroup", &parent];
        let mut arguments = arguments(
            &guard,
            "run",
            "hungry",
            &flags,
            &["dd", "if=/dev/urandom", "of=/dev/null", "bs=64M", "count=1"],
        );
        let probe = program("stockade-probe").display().to_string();
        arguments.iter_mut().filter(|word| **word == probe).for_each(|word| "/bin/busybox".clone_into(word));
        let output = run("stockade", &arguments);
        let said = format!(
            "stockade: the VMM of jail '{}' has exited: killed by signal 9; out of memory: the kernel killed a process of the jail\n",
            guard.named("hungry")
        );
        assert_eq!((output.code, output.stderr), (137, said));
        testkit::remove_cgroup(&parent);
    });
}

/// A jail file with two VMMs that write until their stdout is closed.
fn writers(guard: &Guard) -> PathBuf {
    let (id, base) = (guard.named("{index}"), guard.base());
    let text = format!(
        "[[jail]]\nid = '{id}'\ncount = 2\nexec-file = '/bin/busybox'\nchroot-base-dir = '{}'\narguments = ['yes']\n",
        base.display()
    );
    guard.file("jails.toml", &text)
}

#[test]
fn several_vmms_with_a_closed_stdout_exit_like_one() {
    privileged!(guard, {
        let file = writers(&guard);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut run = Command::new(program("stockade"));
        run.args(["run", "-f"]).arg(&file).env("STOCKADE_STATE_DIR", guard.state());
        let ended = run.stdout(writer).stderr(Stdio::null()).status().unwrap();
        // Killed by SIGPIPE, or failed with EPIPE.
        assert!(ended.code().is_some_and(|code| code != 0), "{ended:?}");
        std::fs::remove_file(&file).unwrap();
    });
}

#[test]
fn several_vmms_with_a_full_stdout_are_reported_and_exit() {
    privileged!(guard, {
        let file = writers(&guard);
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut run = Command::new(program("stockade"));
        run.args(["run", "-f"]).arg(&file).env("STOCKADE_STATE_DIR", guard.state());
        let ended = run.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        let ended = ended.wait_with_output().unwrap();
        assert!(ended.status.code().is_some_and(|code| code != 0), "{ended:?}");
        let said = String::from_utf8(ended.stderr).unwrap();
        for number in 1..3 {
            let line = format!(
                "stockade: cannot write the output of jail '{}': no space left on device",
                guard.named(&number.to_string())
            );
            assert!(said.lines().any(|said| said == line), "{said}");
        }
        std::fs::remove_file(&file).unwrap();
    });
}

#[test]
fn run_restores_a_terminal_that_the_vmm_has_set() {
    privileged!(guard, {
        let (id, base, state) = (guard.named("raw"), guard.base(), guard.state());
        let line = format!(
            "stty -g; {} run --id {id} --exec-file /bin/busybox --chroot-base-dir {} --state-dir {} -- \
             sh -c '/busybox stty raw -echo; /busybox stty -g; kill -9 $$'; stty -g",
            program("stockade").display(),
            base.display(),
            state.display()
        );
        let seen = run_with(Command::new("script").args(["-qec", &line, "/dev/null"]));
        let set: Vec<&str> = seen.stdout.split_whitespace().filter(|word| word.contains(':')).collect();
        let settings: Vec<&&str> = set.iter().filter(|word| word.matches(':').count() > 10).collect();
        let [before, meanwhile, after] = settings[..] else { panic!("{seen:?}") };
        assert_ne!(before, meanwhile, "it was set: {seen:?}");
        assert_eq!(before, after, "{seen:?}");
    });
}
