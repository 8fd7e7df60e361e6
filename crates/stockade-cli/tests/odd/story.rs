//! The life of a jail with every command, and the facts that it leaves behind.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::Value;
use testkit::{Guard, Launcher, Output, program, said, stockade};

use crate::rows::Row;

/// Facts by their names, which are comparable between launchers.
pub(crate) type Facts = BTreeMap<String, String>;

/// The exit codes of stockade's own failures.
const OWN_FAILURE: [(&str, i32); 2] = [("run", 125), ("exec", 125)];

/// Lists the running jails.
const RUNNING: [&str; 4] = ["ps", "-q", "--filter", "state=running"];

pub(crate) struct Story<'g> {
    guard: &'g Guard,
    row: &'g Row,
    facts: Facts,
    wrong: Vec<String>,
}

impl<'g> Story<'g> {
    pub(crate) fn new(guard: &'g Guard, row: &'g Row) -> Self {
        Self { guard, row, facts: Facts::new(), wrong: Vec::new() }
    }

    /// Runs everything. Returns the facts, and what was wrong.
    pub(crate) fn run_all(mut self) -> (Facts, Vec<String>) {
        self.one_jail();
        self.nothing_left("one jail");
        self.run();
        self.nothing_left("run");
        self.signalled_command();
        self.nothing_left("a run with SIGTERM");
        self.killed_command();
        self.nothing_left("a killed command");
        self.jail_file();
        self.nothing_left("a jail file");
        self.doctor();
        self.drop_in();
        (self.facts, self.wrong)
    }

    /// `plan`, `create`, `place`, `start`, everything that looks at a running jail, `stop` and `rm`.
    fn one_jail(&mut self) {
        let id = self.guard.named("vm");
        let flags = self.flags("vm");
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        if let Some(output) = self.does("plan", &[&["plan"], &flags[..]].concat()) {
            self.adds_plan("plan", &output.stdout);
        }
        self.does_or_plainly("create", &[&["create"], &flags[..]].concat());
        let file = self.guard.file("image", "an image").display().to_string();
        self.does_or_plainly("place", &["place", &id, &file]);
        self.does_or_plainly("start", &["start", &id, "--", "inherited", "sleep"]);
        let log = eventually("the VMM prints its attributes", || {
            let log = stockade(self.guard, &["logs", &id]).stdout;
            (log.contains("inherited") && log.ends_with('\n')).then_some(log)
        });
        self.adds_attributes("vmm", &log);
        self.adds_modes();
        if let Some(output) = self.does("ps", &["ps"]) {
            self.adds("ps", &columns(&output.stdout));
        }
        if let Some(output) = self.does("inspect", &["inspect", "--json", &id]) {
            let inspected: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
            self.adds("inspect alive", &inspected["vmm"]["alive"].to_string());
        }
        if let Some(output) = self.does("logs", &["logs", &id]) {
            self.adds("logs", &(output.stdout == log).to_string());
        }
        let probe = program("stockade-probe").display().to_string();
        let inside = "/stockade-probe";
        for (name, line) in [
            ("exec", vec!["exec", &id, "--", inside, "inherited"]),
            ("exec --root", vec!["exec", "--root", &id, "--", inside, "inherited"]),
            ("exec --host-program", vec!["exec", "--host-program", &probe, &id, "--", "inherited"]),
        ] {
            if let Some(output) = self.does(name, &line) {
                self.adds_attributes(name, &output.stdout);
            }
        }
        for (name, line) in [
            ("audit", vec!["audit", "--json", &id]),
            ("audit --probe", vec!["audit", "--probe", "--json", &id]),
        ] {
            self.adds_grades(name, &line);
        }
        let running = format!("stockade: {id} is still running after 0 s\n");
        self.ends("wait --timeout", &["wait", "--timeout", "0", &id], 124, &running);
        self.does("gc", &["gc"]);
        self.does_or_plainly("stop", &["stop", "--timeout", "5", &id]);
        if let Some(output) = self.does("wait", &["wait", &id]) {
            self.adds("wait", &output.stdout);
        }
        self.does_or_plainly("rm", &["rm", &id]);
    }

    /// `run` in the foreground, to the VMM's end and to a signal, and `run --detach`.
    fn run(&mut self) {
        let (id, flags) = (self.guard.named("run"), self.flags("run"));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let line = [&["run"], &flags[..], &["--", "inherited", "exit=7"]].concat();
        if let Some(output) = self.ends("run", &line, 7, "") {
            self.adds_attributes("run", &output.stdout);
        }
        let line = [&["run", "--detach"], &flags[..], &["--", "sleep"]].concat();
        if self.does("run --detach", &line).is_some() {
            self.does_or_plainly("rm --force", &["rm", "--force", &id]);
        }
    }

    /// A foreground `run` that gets SIGTERM: it stops its VMM. A launcher that ignores the signal, as `nohup` ignores
    /// SIGHUP, keeps `run` from getting it.
    fn signalled_command(&mut self) {
        let Some((mut command, id, run)) = self.foreground("signalled") else { return };
        let ignores = ignored_by(run) & 1 << (Signal::TERM.as_raw() - 1) != 0;
        self.adds("run ignores SIGTERM", &ignores.to_string());
        if ignores {
            said(self.guard, &["stop", &id]);
        } else {
            kill_process(Pid::from_raw(run).unwrap(), Signal::TERM).unwrap();
        }
        let code = end_of(&mut command);
        self.check("a run with SIGTERM", code == Some(143), &format!("{code:?}"));
    }

    /// A foreground `run` that is killed: its VMM runs on until `rm --force`.
    fn killed_command(&mut self) {
        let Some((mut command, id, run)) = self.foreground("killed") else { return };
        kill_process(Pid::from_raw(run).unwrap(), Signal::KILL).unwrap();
        let code = end_of(&mut command);
        self.check("a killed run", code.is_none_or(|code| code == 137), &format!("{code:?}"));
        self.does("gc of a killed run", &["gc"]);
        let running = said(self.guard, &RUNNING);
        self.check("gc of a killed run", running == format!("{id}\n"), "the VMM does not run");
        self.does_or_plainly("rm of a killed run", &["rm", "--force", &id]);
    }

    /// Starts `run` in the foreground. Returns the launcher, the id, and the pid of `run`, which a launcher may have as
    /// its child. `None` if `run` fails.
    fn foreground(&mut self, suffix: &str) -> Option<(Child, String, i32)> {
        if self.row.refusal("run").is_some() {
            return None;
        }
        let (id, flags) = (self.guard.named(suffix), self.flags(suffix));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let line = [&["run"], &flags[..], &["--", "sleep"]].concat();
        let mut command = self.row.launcher.command(self.guard, "stockade", &line);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let command = command.spawn().unwrap();
        eventually("the VMM runs", || (said(self.guard, &RUNNING) == format!("{id}\n")).then_some(()));
        let run = parent_of(self.pid_of(&id));
        Some((command, id, run))
    }

    /// The commands that take a file of two jails.
    fn jail_file(&mut self) {
        let (one, two) = (self.guard.named("one"), self.guard.named("two"));
        let text = format!(
            "[defaults]\nexec-file = \"{}\"\nchroot-base-dir = \"base\"\narguments = [\"sleep\"]\n\
             [[jail]]\nid = \"{one}\"\n[[jail]]\nid = \"{two}\"\n",
            program("stockade-probe").display()
        );
        let file = self.guard.file("jails.toml", &text).display().to_string();
        if let Some(output) = self.does("plan -f", &["plan", "-f", &file]) {
            self.adds_plan("plan -f", &output.stdout);
        }
        if self.does("run --detach -f", &["run", "--detach", "-f", &file]).is_none() {
            return;
        }
        let running = said(self.guard, &RUNNING);
        self.check("run --detach -f", running == format!("{one}\n{two}\n"), &running);
        self.does_or_plainly("stop --file", &["stop", "--file", &file]);
        self.does_or_plainly("rm --file", &["rm", "--file", &file]);
    }

    /// The commands that start a VMM below a parent cgroup that is frozen.
    pub(crate) fn below_a_frozen_cgroup(mut self) -> Vec<String> {
        let Some(unified) = testkit::cgroup_v2_mount() else {
            testkit::skip("parent_cgroup_is_frozen", "cgroup v2");
            return self.wrong;
        };
        let parent = unified.join(self.guard.name());
        fs::create_dir(&parent).unwrap();
        fs::write(parent.join("cgroup.freeze"), "1").unwrap();
        let parent_flags = ["--cgroup-version", "2", "--parent-cgroup", self.guard.name()];
        let (id, flags) = (self.guard.named("vm"), self.flags("vm"));
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(parent_flags).collect();
        for command in [&["run"][..], &["run", "--detach"], &["run", "--daemonize"]] {
            let line = [command, &flags, &["--", "sleep"]].concat();
            self.does(&command.join(" "), &line);
            self.nothing_left("a refused run");
        }
        self.does("create", &[&["create"], &flags[..]].concat());
        self.does("start", &["start", &id, "--", "sleep"]);
        self.does("rm", &["rm", &id]);
        self.nothing_left("a refused start");
        self.wrong
    }

    fn doctor(&mut self) {
        self.adds_grades("doctor", &["doctor", "--json"]);
    }

    /// The drop-in: in the foreground, as a daemon, and in a pid namespace.
    fn drop_in(&mut self) {
        let base = self.guard.directory().join("drop-in");
        for (name, more) in
            [("drop-in", None), ("daemonized", Some("--daemonize")), ("pid-ns", Some("--new-pid-ns"))]
        {
            fs::create_dir(&base).unwrap();
            let (id, probe) = (self.guard.named(name), program("stockade-probe").display().to_string());
            let base_text = base.display().to_string();
            let fixed = [
                "--id",
                &id,
                "--exec-file",
                &probe,
                "--uid",
                "12345",
                "--gid",
                "12346",
                "--chroot-base-dir",
                &base_text,
            ];
            let does = if more.is_none() { ["inherited", "exit=0"] } else { ["sleep", "exit=0"] };
            let line = [&fixed[..], more.as_slice(), &["--"], &does].concat();
            let output = self.row.launcher.run(self.guard, "jailer", &line);
            let refusal = self.row.refusal(name);
            let wanted = refusal.map_or((0, String::new()), |line| (1, format!("{line}\n")));
            let stderr = if self.row.readable[1] { self.normal(&output.stderr) } else { wanted.1.clone() };
            self.check(name, (output.code, stderr) == wanted, &format!("{output:?}"));
            if more.is_none() {
                self.adds_attributes(name, &output.stdout);
            } else if refusal.is_none() && output.code == 0 {
                let file = base.join("stockade-probe").join(&id).join("root/stockade-probe.pid");
                let vmm = eventually("the pid file is there", || {
                    fs::read_to_string(&file).ok()?.trim().parse::<i32>().ok()
                });
                eventually("the VMM is executed", || {
                    let comm = fs::read_to_string(format!("/proc/{vmm}/comm")).unwrap_or_default();
                    (comm == "stockade-probe\n").then_some(())
                });
                self.adds_status(name, vmm);
                kill_vmm(vmm);
            }
            fs::remove_dir_all(&base).unwrap();
        }
    }

    // ---- commands ----

    fn flags(&self, suffix: &str) -> Vec<String> {
        let (id, base) = (self.guard.named(suffix), self.guard.base().display().to_string());
        let probe = program("stockade-probe").display().to_string();
        let all = [
            "--id",
            &id,
            "--exec-file",
            &probe,
            "--chroot-base-dir",
            &base,
            "--uid",
            "12345",
            "--gid",
            "12346",
        ];
        all.map(str::to_owned).to_vec()
    }

    /// Runs a command, which succeeds without a word on stderr, or fails with the line of its row. `None` if it fails.
    fn does(&mut self, name: &str, arguments: &[&str]) -> Option<Output> {
        self.ends(name, arguments, 0, "")
    }

    /// The same. If it fails, a plain launcher does it, so that the story can go on.
    fn does_or_plainly(&mut self, name: &str, arguments: &[&str]) {
        if self.does(name, arguments).is_none() {
            let output = Launcher::plain().run(self.guard, "stockade", arguments);
            self.check(name, output.code == 0, &format!("from a plain launcher afterwards: {output:?}"));
        }
    }

    fn ends(&mut self, name: &str, arguments: &[&str], code: i32, stderr: &str) -> Option<Output> {
        let output = self.row.launcher.run(self.guard, "stockade", arguments);
        let refusal = self.row.refusal(name);
        let own_failure = OWN_FAILURE.iter().find(|(command, _)| *command == arguments[0]);
        let (code, stderr) = match refusal {
            Some(line) => (own_failure.map_or(1, |(_, code)| *code), format!("stockade: {line}\n")),
            None => (code, self.normal(stderr)),
        };
        let found = if self.row.readable[1] { self.normal(&output.stderr) } else { stderr.clone() };
        let as_wanted = (output.code, &found) == (code, &stderr);
        self.check(name, as_wanted, &format!("{}: {found}", output.code));
        (refusal.is_none() && as_wanted).then_some(output)
    }

    fn pid_of(&self, id: &str) -> i32 {
        let jails: Value = serde_json::from_str(&said(self.guard, &["ps", "--json"])).unwrap();
        let jail = jails.as_array().unwrap().iter().find(|jail| jail["id"] == id).expect("the jail");
        jail["pid"].as_i64().unwrap().try_into().unwrap()
    }

    // ---- facts ----

    fn check(&mut self, name: &str, holds: bool, found: &str) {
        if !holds {
            self.wrong.push(format!("{name}: {found}"));
        }
    }

    fn adds(&mut self, fact: &str, value: &str) {
        if self.row.readable[0] {
            let value = self.normal(value);
            self.facts.insert(fact.to_owned(), value);
        }
    }

    /// The steps of a plan, without their numbers, and apart from the others those that are about cgroups.
    fn adds_plan(&mut self, fact: &str, plan: &str) {
        let step = |line: &str| line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit()).to_owned();
        let steps = plan.replace(", in cgroup ", "\nin cgroup ");
        let (cgroups, others): (Vec<String>, Vec<String>) =
            steps.lines().map(step).partition(|step| step.contains("cgroup"));
        self.adds(fact, &others.join("\n"));
        self.adds(&format!("{fact}: cgroups"), &cgroups.join("\n"));
    }

    /// The probe's report of everything that it inherited.
    fn adds_attributes(&mut self, name: &str, text: &str) {
        let line = text.lines().find(|line| line.contains("\"inherited\""));
        let report: Value = line.and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
        for (attribute, value) in report["inherited"].as_object().into_iter().flatten() {
            let mut value = value.as_str().unwrap().to_owned();
            if attribute == "capabilities-bounding" {
                let set = u64::from_str_radix(&value, 16).unwrap();
                let ptrace = 1 << 19;
                self.facts.insert(format!("{name} bounds CAP_SYS_PTRACE"), (set & ptrace == 0).to_string());
                value = format!("{:x}", set & !ptrace);
            }
            self.facts.insert(format!("{name} {attribute}"), value);
        }
    }

    /// The grade of each finding.
    fn adds_grades(&mut self, name: &str, arguments: &[&str]) {
        let output = self.row.launcher.run(self.guard, "stockade", arguments);
        if let Some(line) = self.row.refusal(name) {
            let as_wanted = output.code == 1 && self.normal(&output.stderr) == format!("stockade: {line}\n");
            return self.check(name, as_wanted, &format!("{}: {}", output.code, output.stderr));
        }
        if !self.row.readable[0] {
            return self.check(name, output.code == 0, &format!("{output:?}"));
        }
        let report: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        let findings = report["findings"].as_array().cloned().unwrap_or_default();
        self.check(name, !findings.is_empty(), &format!("{output:?}"));
        let mut has_broken = false;
        for finding in &findings {
            let [check, grade] = ["check", "grade"].map(|key| finding[key].as_str().unwrap());
            has_broken |= grade == "broken";
            self.facts.insert(format!("{name} {check}"), grade.to_owned());
        }
        let seen = (output.code, output.stderr.as_str());
        self.check(name, seen == (i32::from(has_broken), ""), &format!("{seen:?}"));
    }

    /// The owners and modes of all files of the jail.
    fn adds_modes(&mut self) {
        for (name, directory) in [("state", self.guard.state()), ("base", self.guard.base())] {
            let mut pending = vec![directory.clone()];
            while let Some(path) = pending.pop() {
                let facts = fs::symlink_metadata(&path).unwrap();
                let below = path.strip_prefix(&directory).unwrap();
                let fact = self.normal(&format!("mode {}", Path::new(name).join(below).display()));
                let fact = fact.trim_end_matches('/').to_owned();
                let value = format!("{:o} {}:{}", facts.mode(), facts.uid(), facts.gid());
                self.facts.insert(fact, value);
                if facts.is_dir() {
                    pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                }
            }
        }
    }

    /// What the kernel shows of a process.
    fn adds_status(&mut self, name: &str, pid: i32) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let wanted =
            ["Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "CapInh", "CapPrm", "CapEff", "CapAmb"];
        for line in status.lines() {
            let (field, value) = line.split_once(':').unwrap();
            let mut value = value.split_whitespace().collect::<Vec<_>>().join(" ");
            if field == "SigIgn" {
                // Rust's runtime in the probe ignores SIGPIPE, sooner or later.
                let set = u64::from_str_radix(&value, 16).unwrap() & !(1 << (13 - 1));
                value = format!("{set:x}");
            }
            if wanted.contains(&field) {
                self.facts.insert(format!("{name} {field}"), value);
            }
        }
        let descriptors: Vec<PathBuf> =
            fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap().path()).collect();
        self.facts.insert(format!("{name} descriptors"), descriptors.len().to_string());
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let policy = stat.rsplit_once(") ").unwrap().1.split(' ').nth(38).unwrap();
        self.facts.insert(format!("{name} scheduling policy"), policy.to_owned());
    }

    /// A text without the names that differ from test to test.
    fn normal(&self, text: &str) -> String {
        let mut text = text.replace(self.guard.name(), "NAME");
        if let Some(unified) = testkit::cgroup_v2_mount() {
            text = text.replace(&format!("{}/", unified.display()), "CGROUP2/");
        }
        for before in ["process ", "/proc/"] {
            let mut parts = text.split(before);
            let first = parts.next().unwrap_or_default().to_owned();
            text = parts.fold(first, |text, part| {
                let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
                let pid = if rest.len() < part.len() { "PID" } else { "" };
                format!("{text}{before}{pid}{rest}")
            });
        }
        let mut normal = String::new();
        for (at, part) in text.split('-').enumerate() {
            let digits = part.chars().take_while(char::is_ascii_hexdigit).count();
            let separator = if at == 0 { "" } else { "-" };
            if at > 0 && digits >= 8 {
                normal.extend([separator, "NONCE", &part[digits..]]);
            } else {
                normal.extend([separator, part]);
            }
        }
        normal
    }

    /// After each part a plain `gc` finds nothing that is left.
    fn nothing_left(&mut self, after: &str) {
        let listed = said(self.guard, &["ps", "-q"]);
        self.check(after, listed.is_empty(), &format!("jails are left: {listed}"));
        for id in listed.lines() {
            stockade(self.guard, &["rm", "--force", id]);
        }
        let collected = stockade(self.guard, &["gc"]);
        self.check(after, collected.code == 0 && collected.stderr.is_empty(), &format!("{collected:?}"));
        for directory in [self.guard.base(), self.guard.state()] {
            self.check(after, !directory.exists(), &format!("{} is left", directory.display()));
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// The table of `ps` without the columns of pids and ages.
fn columns(table: &str) -> String {
    let row = |line: &str| {
        let cells = line.split_whitespace().enumerate().filter(|(at, _)| ![1, 4].contains(at));
        cells.map(|(_, cell)| cell).collect::<Vec<_>>().join(" ")
    };
    table.lines().map(row).collect::<Vec<_>>().join("\n")
}

fn parent_of(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The signals that a process ignores, a bit for each.
fn ignored_by(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(set.trim(), 16).unwrap()
}

/// Waits for a launcher, and continues one that is stopped. Returns its exit code.
fn end_of(command: &mut Child) -> Option<i32> {
    let pid = Pid::from_child(command);
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(status) = command.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < deadline, "the launcher does not end");
        let _ = kill_process(pid, Signal::CONT);
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn eventually<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills the VMM of a drop-in that has exited, and waits for it: it is a child of this process.
fn kill_vmm(vmm: i32) {
    let vmm = Pid::from_raw(vmm).unwrap();
    kill_process(vmm, Signal::KILL).unwrap();
    let _ = waitpid(Some(vmm), WaitOptions::empty());
}
