//! Everything that a process inherits from a launcher with unusual attributes, compared with `docs/inherited-state.md`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use testkit::{Guard, privileged, program, run_with, stdout_of};

/// The columns of the table.
const VMM: usize = 0;
const EXEC: usize = 1;
const ROOT: usize = 2;
const MONITOR: usize = 3;
const DROP_IN: usize = 4;

type State = BTreeMap<String, String>;

/// The table: each attribute with its value in each column.
fn table() -> BTreeMap<String, Vec<String>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/inherited-state.md");
    let text = std::fs::read_to_string(page).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let mut cells =
            line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned());
        let name = cells.next().unwrap();
        let cells: Vec<String> = cells.collect();
        assert_eq!(cells.len(), 6, "a cell for each column and the reason: {line}");
        assert!(cells[5].len() > 3, "a reason: {line}");
        (name, cells)
    };
    rows.map(row).collect()
}

/// A command that is started from a launcher with unusual attributes.
fn odd(guard: &Guard, program_name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("stockade-probe"));
    command.arg("odd").arg(program(program_name)).args(arguments);
    command.env("STOCKADE_STATE_DIR", guard.state()).env("STOCKADE_ODD", "1");
    command
}

fn said(mut command: Command) -> String {
    stdout_of(&mut command)
}

fn state_in(text: &str) -> State {
    let line = text.lines().find(|line| line.contains("\"inherited\"")).expect("the probe's line");
    let value: Value = serde_json::from_str(line).unwrap();
    state_of(&value["inherited"])
}

fn state_of(value: &Value) -> State {
    let all = value.as_object().expect("attributes by name");
    all.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
}

/// The attributes of a process as the kernel shows them to other processes, by the same names.
fn seen_from_outside(pid: i32) -> State {
    let of = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let status = of("status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(&format!("{name}:"))).expect("a field");
        line.split_once(':').unwrap().1.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let hex = |name: &str| field(name).trim_start_matches('0').to_owned();
    let or_zero = |text: String| if text.is_empty() { "0".to_owned() } else { text };
    let three = |name: &str| field(name).split(' ').take(3).collect::<Vec<_>>().join(" ");
    let or_none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    let signals = |name: &str| {
        let bits = u64::from_str_radix(&field(name), 16).unwrap();
        let set = (1..=64).filter(|signal| bits & (1 << (signal - 1)) != 0);
        or_none(set.map(|signal: u32| signal.to_string()).collect::<Vec<_>>().join(" "))
    };
    let mut state = State::new();
    let mut add = |name: &str, value: String| state.insert(name.to_owned(), value);
    add("uids", three("Uid"));
    add("gids", three("Gid"));
    add("groups", or_none(field("Groups")));
    for (name, line) in [
        ("inheritable", "CapInh"),
        ("permitted", "CapPrm"),
        ("effective", "CapEff"),
        ("bounding", "CapBnd"),
        ("ambient", "CapAmb"),
    ] {
        add(&format!("capabilities-{name}"), or_zero(hex(line)));
    }
    add("no-new-privs", field("NoNewPrivs"));
    add("seccomp-mode", field("Seccomp"));
    add("umask", field("Umask"));
    add("huge-pages-disabled", if field("THP_enabled") == "1" { "0" } else { "1" }.to_owned());
    add("cpu-affinity", or_zero(hex("Cpus_allowed")));
    add("signals-ignored", signals("SigIgn"));
    add("signals-blocked", signals("SigBlk"));
    add("oom-score", of("oom_score_adj").trim().to_owned());
    add("core-dump-filter", of("coredump_filter").trim().to_owned());
    add("audit-user", of("loginuid").trim().to_owned());
    add("personality", or_zero(of("personality").trim().trim_start_matches('0').to_owned()));
    add("timer-slack", of("timerslack_ns").trim().to_owned());
    add("environment", or_none(of("environ")));
    let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    add("working-directory", cwd.display().to_string());
    let stat = of("stat");
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    add("session", if fields[3] == pid.to_string() { "own" } else { "launcher's" }.to_owned());
    add("nice", fields[16].to_owned());
    // The policy and the priority. The kernel shows the flags nowhere.
    add("scheduling", format!("{} {} 0", fields[38], fields[37]));
    for line in of("limits").lines().skip(1) {
        let (name, rest) = line.split_at(26);
        let values: Vec<&str> = rest.split_whitespace().take(2).collect();
        let short = match name.trim() {
            "Max cpu time" => "cpu",
            "Max file size" => "fsize",
            "Max data size" => "data",
            "Max stack size" => "stack",
            "Max core file size" => "core",
            "Max resident set" => "rss",
            "Max processes" => "nproc",
            "Max open files" => "nofile",
            "Max locked memory" => "memlock",
            "Max address space" => "as",
            "Max file locks" => "locks",
            "Max pending signals" => "sigpending",
            "Max msgqueue size" => "msgqueue",
            "Max nice priority" => "nice",
            "Max realtime priority" => "rtprio",
            "Max realtime timeout" => "rttime",
            other => panic!("an unknown limit: {other}"),
        };
        add(&format!("limit-{short}"), values.join(" "));
    }
    state
}

/// The documented value. It may depend on the launcher or the host.
fn wanted(name: &str, cell: &str, launcher: &State) -> String {
    match cell {
        "launcher's" if name == "signals-ignored" => {
            // All but SIGPIPE, which Firecracker's jailer resets too.
            launcher[name].split(' ').filter(|signal| *signal != "13").collect::<Vec<_>>().join(" ")
        }
        "launcher's" if name != "session" => launcher[name].clone(),
        "all" => {
            let set = rustix::thread::sched_getaffinity(None).unwrap();
            let bits = (0..64).filter(|at| set.is_set(*at)).fold(0_u64, |bits, at| bits | 1 << at);
            format!("{bits:x}")
        }
        limit if name.starts_with("limit-") => {
            let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
            let hard = number(launcher[name].split(' ').next_back().unwrap());
            let least = |text: &str| match number(text).min(hard) {
                u64::MAX => "unlimited".to_owned(),
                value => value.to_string(),
            };
            limit.split(' ').map(least).collect::<Vec<_>>().join(" ")
        }
        other => other.to_owned(),
    }
}

/// Attributes that the kernel does not show to other processes.
const UNSEEN_FROM_OUTSIDE: [&str; 2] = ["io-priority", "securebits"];

/// Compares the attributes of a process with a column of the table.
fn compare(who: &str, column: usize, state: &State, launcher: &State) {
    let table = table();
    let mut wrong = Vec::new();
    let mut compared = 0;
    for (name, cells) in &table {
        let cell = &cells[column];
        let Some(found) = state.get(name) else {
            if cell != "-" && !(column == MONITOR && UNSEEN_FROM_OUTSIDE.contains(&name.as_str())) {
                wrong.push(format!("{name}: not found, the table says {cell}"));
            }
            continue;
        };
        if cell == "-" {
            continue;
        }
        compared += 1;
        let wanted = wanted(name, cell, launcher);
        if *found != wanted {
            wrong.push(format!("{name}: {found}, the table says {wanted}"));
        }
    }
    let unknown: Vec<&String> = state.keys().filter(|name| !table.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "{who}: without a row: {unknown:?}");
    assert!(wrong.is_empty(), "{who}:\n{}", wrong.join("\n"));
    testkit::tell(&format!("{who}: {compared} attributes compared"));
}

/// Checks that the launcher itself differs in each attribute, so that no documented value holds by chance.
fn check_odd(launcher: &State) {
    let same_by_nature = [
        // The launcher cannot differ: there is no other user of this kind, or the kernel has no other value.
        "uids",
        "audit-user",
        "death-signal",
        "time-stamp-counter",
        "write-or-execute",
        "speculation",
        "seccomp-mode",
        "no-new-privs",
        // A soft limit cannot exceed a hard limit of 0.
        "limit-nice",
        "limit-rtprio",
        // The kernel keeps the nice value of a real-time process, but does not show it.
        "nice",
    ];
    for (name, cells) in table() {
        if same_by_nature.contains(&name.as_str()) || cells[VMM] == "launcher's" || name == "session" {
            continue;
        }
        let wanted = wanted(&name, &cells[VMM], launcher);
        assert_ne!(launcher[&name], wanted, "{name} of the launcher is not odd");
    }
}

#[test]
fn processes_inherit_nothing_of_an_odd_launcher() {
    privileged!(guard, {
        let launcher = state_in(&said(odd(&guard, "stockade-probe", &["inherited"])));
        check_odd(&launcher);
        let base = guard.base().display().to_string();
        let probe = program("stockade-probe").display().to_string();
        let jail = |id: &str, command: &str| -> Vec<String> {
            let arguments = [command, "--id", id, "--exec-file", &probe, "--chroot-base-dir", &base];
            arguments.iter().chain(&["--place", "/proc=proc:bind"]).map(|word| (*word).to_owned()).collect()
        };
        let arguments = |all: &[String]| all.to_vec();

        // run
        let id = guard.named("run");
        let mut run = arguments(&jail(&id, "run"));
        run.extend(["--".into(), "inherited".into()]);
        let run: Vec<&str> = run.iter().map(String::as_str).collect();
        compare("the VMM of run", VMM, &state_in(&said(odd(&guard, "stockade", &run))), &launcher);

        // create and start, with the monitor
        let id = guard.named("start");
        let create = jail(&id, "create");
        let create: Vec<&str> = create.iter().map(String::as_str).collect();
        said(odd(&guard, "stockade", &create));
        let start = odd(&guard, "stockade", &["start", &id, "--", "inherited", "sleep"]);
        let vmm: i32 = said(start).trim().parse().unwrap();
        let log = log_of(&guard, &id);
        compare("the VMM of start", VMM, &state_in(&log), &launcher);
        let stat = std::fs::read_to_string(format!("/proc/{vmm}/stat")).unwrap();
        let monitor: i32 = stat[stat.rfind(')').unwrap() + 2..].split(' ').nth(1).unwrap().parse().unwrap();
        compare("the monitor", MONITOR, &seen_from_outside(monitor), &launcher);
        // Not even a process of its uid may trace it, such as a VMM of uid 0.
        let mut traced = Command::new("setpriv");
        traced.args([
            "--bounding-set=-all",
            "sh",
            "-c",
            &format!("readlink /proc/{monitor}/exe; readlink /proc/$$/exe"),
        ]);
        let traced = run_with(&mut traced);
        assert_eq!(traced.stdout.lines().count(), 1, "its own alone: {}{}", traced.stdout, traced.stderr);
        check_agreement(&state_in(&log), &seen_from_outside(vmm));

        // exec, exec --root, audit --probe
        let exec = ["exec", &id, "--", "/stockade-probe", "inherited"];
        compare("exec", EXEC, &state_in(&said(odd(&guard, "stockade", &exec))), &launcher);
        let root = ["exec", "--root", &id, "--", "/stockade-probe", "inherited", "hold"];
        compare("exec --root", ROOT, &from_both_sides(odd(&guard, "stockade", &root)), &launcher);
        let host = ["exec", "--host-program", &probe, &id, "--", "inherited"];
        compare("exec --host-program", EXEC, &state_in(&said(odd(&guard, "stockade", &host))), &launcher);
        let audit: Value = serde_json::from_str(
            &run_with(&mut odd(&guard, "stockade", &["audit", "--probe", "--json", &id])).stdout,
        )
        .unwrap();
        compare("audit --probe", EXEC, &state_of(&audit["inside"]["inherited"]), &launcher);
        said(odd(&guard, "stockade", &["rm", "--force", &id]));

        // the drop-in
        let id = guard.named("jailer");
        let root = guard.base().join("stockade-probe").join(&id).join("root");
        let script = "mkdir -p \"$0/proc\" && mount --bind /proc \"$0/proc\" && exec \"$@\"";
        let mut drop_in = Command::new("unshare");
        drop_in
            .args(["--mount", "sh", "-c", script])
            .arg(&root)
            .arg(&probe)
            .arg("odd")
            .arg(program("jailer"));
        drop_in.args(["--id", &id, "--exec-file", &probe, "--uid", "1234", "--gid", "1234"]);
        drop_in.args(["--chroot-base-dir", &base, "--", "inherited"]);
        let said_by_drop_in = said(drop_in);
        // The drop-in has no teardown. The kernel removed the procfs with the mount namespace.
        std::fs::remove_dir_all(guard.base()).unwrap();
        compare("the VMM of the drop-in", DROP_IN, &state_in(&said_by_drop_in), &launcher);
    });
}

/// The attributes of an exec process: its own report, and from outside those that it cannot read without a procfs.
fn from_both_sides(mut command: Command) -> State {
    let mut exec = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(exec.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let mut state = state_in(&line);
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", exec.id())).unwrap();
    let outside = seen_from_outside(children.trim().parse().unwrap());
    for (name, value) in outside {
        if state.get(&name).is_some_and(|inside| inside == "-") {
            state.insert(name, value);
        }
    }
    // The process waits for the end of its input.
    drop(exec.stdin.take());
    assert!(exec.wait().unwrap().success());
    state
}

/// Waits for the probe's line in a jail's log, and returns the log.
fn log_of(guard: &Guard, id: &str) -> String {
    for _ in 0..500 {
        let log = run_with(&mut odd(guard, "stockade", &["logs", id])).stdout;
        if log.contains("inherited") {
            return log;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("the VMM of {id} has printed nothing");
}

/// Checks that the views from inside and outside agree, so that the monitor's column is comparable with the others.
fn check_agreement(inside: &State, outside: &State) {
    for (name, value) in outside {
        // Rust's runtime in the probe ignores SIGPIPE, and the probe's report omits that.
        if name != "signals-ignored" {
            assert_eq!(inside.get(name), Some(value), "{name}");
        }
    }
}

#[test]
fn a_launchers_file_size_limit_kills_neither_monitor_nor_vmm() {
    privileged!(guard, {
        let (id, base) = (guard.named("fsize"), guard.base().display().to_string());
        let busybox = "/bin/busybox";
        let create = ["create", "--id", &id, "--exec-file", busybox, "--chroot-base-dir", &base];
        testkit::said(&guard, &create);
        // The hard limit too, so that stockade cannot raise it without CAP_SYS_RESOURCE.
        let script = "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done; \
                      echo written >/run/done; exec /busybox sleep 1000";
        let mut start = Command::new("prlimit");
        start.arg("--fsize=65536").arg(program("stockade")).args(["start", &id, "--", "sh", "-c", script]);
        start.env("STOCKADE_STATE_DIR", guard.state());
        let vmm: i32 = said(start).trim().parse().unwrap();
        let done = guard.base().join("busybox").join(&id).join("root/run/done");
        let is_done = (0..500).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            done.exists()
        });
        assert!(is_done, "the VMM has written all it had to, and runs on");
        let status = std::fs::read_to_string(format!("/proc/{vmm}/status")).unwrap();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim();
        let comm = std::fs::read_to_string(format!("/proc/{parent}/comm")).unwrap();
        assert_eq!(comm, "stockade-mon\n", "the monitor is its parent");
        testkit::said(&guard, &["rm", "--force", &id]);
    });
}
