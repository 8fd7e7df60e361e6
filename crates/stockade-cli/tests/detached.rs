//! Jails that outlive the command that created them: `create`, `place`, `start`, `wait`, `kill`, `logs` and `rm` in
//! separate processes.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{Guard, command, privileged, program, said, stockade};

fn refused(guard: &Guard, arguments: &[&str], line: &str) {
    let output = stockade(guard, arguments);
    assert_eq!((output.code, output.stdout.as_str(), output.stderr), (1, "", format!("stockade: {line}\n")));
}

fn create(guard: &Guard, id: &str, flags: &[&str]) -> String {
    let id = guard.named(id);
    let (base, probe) = (guard.base().display().to_string(), program("stockade-probe").display().to_string());
    let fixed = ["create", "--id", &id, "--exec-file", &probe, "--chroot-base-dir", &base];
    assert_eq!(said(guard, &[&fixed[..], flags].concat()), format!("{id}\n"));
    id
}

fn state(guard: &Guard, id: &str) -> String {
    let table = said(guard, &["ps"]);
    let row = table.lines().find(|line| line.split_whitespace().next() == Some(id));
    row.and_then(|row| row.split_whitespace().nth(2)).unwrap_or("gone").to_owned()
}

/// Starts the VMM and returns its pid.
fn start(guard: &Guard, id: &str, vmm: &[&str]) -> i32 {
    said(guard, &[&["start", id, "--"], vmm].concat()).trim().parse().unwrap()
}

/// The parent of a running VMM.
fn monitor_of(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap()
}

fn nothing_left(guard: &Guard) {
    assert!(!guard.base().exists() && !guard.state().exists());
}

#[test]
fn a_jail_outlives_each_command_of_its_life() {
    privileged!(guard, {
        let net = guard.named("net");
        let flags =
            ["--netns", &net, "--ramfs", "1M", "--cgroup", "pids.max=9", "--parent-cgroup", guard.name()];
        let id = create(&guard, "life", &flags);
        assert_eq!(state(&guard, &id), "created");
        assert_eq!(said(&guard, &["gc"]), "no abandoned jails\n", "a jail that waits is not dead");
        let image = guard.file("image", "an image").display().to_string();
        let placed = said(&guard, &["place", &id, &image, &format!("{image}=drives/root.img")]);
        assert_eq!(placed, "/image\n/drives/root.img\n");
        start(&guard, &id, &["read=/image", "read=/drives/root.img", "exit=7"]);
        assert_eq!(said(&guard, &["wait", &id]), "7\n");
        assert_eq!(state(&guard, &id), "exited");
        assert_eq!(said(&guard, &["gc"]), "no abandoned jails\n", "its end can still be asked for");
        let log = said(&guard, &["logs", &id]);
        assert_eq!(log, "{\"read\":\"an image\"}\n{\"read\":\"an image\"}\n");
        assert_eq!(said(&guard, &["wait", &id]), "7\n", "it is still known");
        assert_eq!(said(&guard, &["rm", &id]), format!("{id}\n"));
        nothing_left(&guard);
    });
}

#[test]
fn the_vmms_exit_is_recorded_after_its_launcher_exited() {
    privileged!(guard, {
        for (word, code) in
            [("exit=0", "0\n"), ("exit=255", "255\n"), ("signal=9", "137\n"), ("signal=15", "143\n")]
        {
            let id = create(&guard, "end", &[]);
            start(&guard, &id, &["sleep-ms=50", word]);
            assert_eq!(said(&guard, &["wait", &id]), code, "{word}");
            assert_eq!(said(&guard, &["rm", &id]), format!("{id}\n"));
        }
        nothing_left(&guard);
    });
}

#[test]
fn wait_keeps_the_order_and_kill_takes_names_and_numbers() {
    privileged!(guard, {
        let ids = ["a", "b", "c"].map(|id| create(&guard, id, &[]));
        for id in &ids {
            start(&guard, id, &["sleep"]);
        }
        let mut waiting = command(&guard, &["wait", &ids[0], &ids[1], &ids[2]]);
        let waiting = waiting.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        for (signal, id) in ["SIGTERM", "int", "9"].iter().zip(&ids) {
            assert_eq!(said(&guard, &["kill", "-s", signal, id]), "");
        }
        let codes = String::from_utf8(waiting.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(codes, "143\n130\n137\n");
        assert_eq!(said(&guard, &["rm", &ids[0], &ids[1], &ids[2]]).lines().count(), 3);
        nothing_left(&guard);
    });
}

#[test]
fn the_log_keeps_the_last_output_within_its_size() {
    privileged!(guard, {
        let id = create(&guard, "log", &[]);
        let mut arguments = vec!["start", &id, "--log-size", "8K", "--"];
        arguments.extend(vec!["clock"; 3_000]);
        arguments.push("args-of-no-action");
        said(&guard, &arguments);
        assert_eq!(said(&guard, &["wait", &id]), "2\n");
        let log = said(&guard, &["logs", &id]);
        assert!(log.len() <= 8 << 10 && log.len() > 2 << 10, "{} bytes", log.len());
        assert!(
            log.ends_with("stockade-probe: unknown action 'args-of-no-action'\n"),
            "the last lines are kept"
        );
        said(&guard, &["rm", &id]);
    });
}

#[test]
fn output_without_a_log_is_dropped() {
    privileged!(guard, {
        let id = create(&guard, "nolog", &[]);
        said(&guard, &["start", &id, "--log-size", "0", "--", "clock", "exit=3"]);
        assert_eq!(said(&guard, &["wait", &id]), "3\n");
        let logs = stockade(&guard, &["logs", &id]);
        let line = format!(
            "stockade: jail '{id}' has no log: it was started with `--log-size 0`, which drops its output\n"
        );
        assert_eq!((logs.code, logs.stdout.as_str(), logs.stderr), (1, "", line));
        said(&guard, &["rm", &id]);
    });
}

#[test]
fn a_failed_start_does_not_change_the_jail() {
    privileged!(guard, {
        let id = create(&guard, "fail", &[]);
        let root = format!("{}/stockade-probe/{id}/root", guard.base().display());
        // The jail is unusable, then whole again.
        std::fs::rename(format!("{root}/stockade-probe"), format!("{root}/away")).unwrap();
        let failed = stockade(&guard, &["start", &id]);
        assert_eq!(failed.code, 1);
        assert!(
            failed.stderr.starts_with("stockade: cannot execute in the jail: /stockade-probe"),
            "{failed:?}"
        );
        assert_eq!(state(&guard, &id), "created");
        std::fs::rename(format!("{root}/away"), format!("{root}/stockade-probe")).unwrap();
        start(&guard, &id, &["sleep-ms=20", "exit=4"]);
        assert_eq!(said(&guard, &["wait", &id]), "4\n");
        said(&guard, &["rm", &id]);
        nothing_left(&guard);
    });
}

#[test]
fn a_running_jail_takes_files_and_is_removed_only_by_force() {
    privileged!(guard, {
        let id = create(&guard, "run", &[]);
        let pid = start(&guard, &id, &["spawn=2", "sleep"]);
        assert_eq!(said(&guard, &["place", &id, "/etc/passwd=hot"]), "/hot\n");
        let inside = std::fs::read(format!("/proc/{pid}/root/hot")).unwrap();
        assert_eq!(inside, std::fs::read("/etc/passwd").unwrap());
        refused(&guard, &["start", &id], &format!("jail '{id}' is running as pid {pid}"));
        let line = format!("jail '{id}' is running as pid {pid}; stop it first or use --force");
        refused(&guard, &["rm", &id], &line);
        assert_eq!(said(&guard, &["rm", "--force", &id]), format!("{id}\n"));
        nothing_left(&guard);
    });
}

#[test]
fn an_exited_jail_can_only_be_removed() {
    privileged!(guard, {
        let id = create(&guard, "dead", &[]);
        start(&guard, &id, &["sleep-ms=20"]);
        said(&guard, &["wait", &id]);
        let line = format!("jail '{id}' is exited; remove it with `stockade rm {id}`");
        refused(&guard, &["start", &id], &line);
        refused(&guard, &["place", &id, "/etc/passwd"], &line);
        refused(
            &guard,
            &["kill", &id],
            &format!("jail '{id}' is not running; see its state with `stockade ps`"),
        );
        said(&guard, &["rm", &id]);
    });
}

#[test]
fn a_missing_jail_is_named() {
    privileged!(guard, {
        let line = "no jail 'nobody'; list the jails with `stockade ps`";
        for arguments in [
            &["place", "nobody", "/etc/passwd"][..],
            &["start", "nobody"],
            &["wait", "nobody"],
            &["kill", "nobody"],
            &["logs", "nobody"],
            &["rm", "nobody"],
        ] {
            refused(&guard, arguments, line);
        }
        nothing_left(&guard);
        refused(
            &guard,
            &["kill", "-s", "NOPE", "x"],
            "--signal: 'NOPE' is not a signal; use a name or number, such as TERM or 15",
        );
        refused(
            &guard,
            &["rm", "a/b"],
            "invalid value 'a/b' for '[ID]...': a path is no id; name a jail that `stockade ps` lists",
        );
    });
}

#[test]
fn start_returns_once_the_vmm_accepts_connections() {
    privileged!(guard, {
        let id = create(&guard, "ready", &[]);
        let socket = "/run/api.sock";
        said(
            &guard,
            &[
                "start",
                &id,
                &format!("--ready={socket}"),
                "--",
                "sleep-ms=100",
                "listen=/run/api.sock",
                "sleep",
            ],
        );
        let inside = format!("{}/stockade-probe/{id}/root{socket}", guard.base().display());

        assert!(std::path::Path::new(&inside).exists());
        assert_eq!(state(&guard, &id), "running");
        said(&guard, &["rm", "--force", &id]);
    });
}

#[test]
fn an_exit_before_ready_is_reported_with_the_last_lines() {
    privileged!(guard, {
        let id = create(&guard, "early", &[]);
        let arguments = ["start", &id, "--ready=/run/api.sock", "--", "read=/no/kernel", "exit=148"];
        let line = format!(
            "the VMM of jail '{id}' exited before it was ready: exit code 148: \
             {{\"read_error\":\"ENOENT\"}}"
        );
        refused(&guard, &arguments, &line);
        assert_eq!(said(&guard, &["wait", &id]), "148\n");
        said(&guard, &["rm", &id]);
    });
}

#[test]
fn a_vmm_that_is_not_ready_in_time_runs_on() {
    privileged!(guard, {
        let id = create(&guard, "late", &[]);
        let arguments = ["start", &id, "--ready=/run/api.sock", "--timeout", "0", "--", "sleep"];
        refused(
            &guard,
            &arguments,
            &format!(
                "the VMM of jail '{id}' accepts no connection at '/run/api.sock' after 0 s; give the VMM's socket to --ready, or raise --timeout"
            ),
        );
        assert_eq!(state(&guard, &id), "running");
        said(&guard, &["rm", "--force", &id]);
    });
}

#[test]
fn the_monitor_is_small_and_has_few_file_descriptors() {
    privileged!(guard, {
        let id = create(&guard, "small", &[]);
        let pid = start(&guard, &id, &["clock", "sleep"]);
        let monitor = monitor_of(pid);
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{monitor}/{file}")).unwrap();
        assert_eq!(read("comm"), "stockade-mon\n");
        let memory: u64 = read("smaps_rollup")
            .lines()
            .filter(|line| line.starts_with("Private_"))
            .map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
            .sum();
        eprintln!("the monitor's private memory: {memory} KiB");
        assert!(memory <= 300, "{memory} KiB");
        assert_eq!(std::fs::read_dir(format!("/proc/{monitor}/task")).unwrap().count(), 1);
        // The state entry, the pidfd, the pipe, and the log if it is not empty.
        assert!(std::fs::read_dir(format!("/proc/{monitor}/fd")).unwrap().count() <= 4);
        assert_eq!(std::fs::read_link(format!("/proc/{monitor}/cwd")).unwrap(), std::path::Path::new("/"));
        let links = [0, 1, 2].map(|fd| std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap());
        assert_eq!(links[0], std::path::Path::new("/dev/null"));
        assert_eq!(links[1], links[2], "both go to the log");
        said(&guard, &["rm", "--force", &id]);
    });
}

#[test]
fn a_killed_monitor_loses_only_the_exit_code() {
    privileged!(guard, {
        let id = create(&guard, "orphan", &[]);
        let vmm = start(&guard, &id, &["sleep"]);
        let monitor = monitor_of(vmm);
        let monitor = rustix::process::Pid::from_raw(monitor).unwrap();
        rustix::process::kill_process(monitor, rustix::process::Signal::KILL).unwrap();
        rustix::process::waitpid(Some(monitor), rustix::process::WaitOptions::empty()).unwrap();
        assert_eq!(state(&guard, &id), "running");
        said(&guard, &["kill", &id]);
        // The orphan's new parent is this process. Like init elsewhere, it takes the exit status.
        rustix::process::waitpid(rustix::process::Pid::from_raw(vmm), rustix::process::WaitOptions::empty())
            .unwrap();
        let line = format!("jail '{id}' is not running, and the exit status of its VMM is unknown");
        refused(&guard, &["wait", &id], &line);
        said(&guard, &["rm", &id]);
        nothing_left(&guard);
    });
}

#[test]
fn stop_ends_children_of_the_vmm_and_exec_processes() {
    privileged!(guard, {
        let id = create(&guard, "jail", &[]);
        start(&guard, &id, &["spawn=1", "sleep"]);
        let members = || {
            let jail: Value = serde_json::from_str(&said(&guard, &["inspect", "--json", &id])).unwrap();
            let cgroup = jail["paths"]["cgroups"][0].as_str().unwrap();
            std::fs::read_to_string(format!("{cgroup}/cgroup.procs")).unwrap().lines().count()
        };
        let until = |count: usize| {
            let deadline = Instant::now() + Duration::from_secs(20);
            while members() != count {
                assert!(Instant::now() < deadline, "{} are there", members());
                std::thread::yield_now();
            }
        };
        until(2);
        let mut exec = command(&guard, &["exec", &id, "stockade-probe", "args", "sleep"]);
        let mut exec = exec.stdout(Stdio::piped()).spawn().unwrap();
        until(3);
        // The exec process is in the cgroup before it executes its program. Its output is awaited, because an exec that
        // enters after the VMM's exit is killed.
        std::io::Read::read_exact(exec.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        // They survive the VMM's exit.
        said(&guard, &["kill", &id]);
        assert_eq!(said(&guard, &["wait", &id]), "137\n");
        assert_eq!(members(), 2);
        let table = said(&guard, &["ps"]);
        let row: Vec<&str> = table.lines().last().unwrap().split_whitespace().collect();
        assert_eq!((&row[..4], row[5]), (&[&id, "-", "exited", "137"][..], "stockade-probe"));
        assert_eq!(said(&guard, &["stop", &id]), format!("{id}\n"));
        assert_eq!(members(), 0);
        assert_eq!(exec.wait().unwrap().code(), Some(137));
        said(&guard, &["rm", &id]);

        let id = create(&guard, "jail", &[]);
        start(&guard, &id, &["spawn=1", "sleep"]);
        until(2);
        assert_eq!(said(&guard, &["stop", &id]), format!("{id}\n"));
        assert_eq!(members(), 0);
        said(&guard, &["rm", &id]);
    });
}
