//! A live jail is never called dead, taken over or torn down because the command cannot look at it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use testkit::{Guard, Output, privileged, program, run_with, said, stockade};

const BUSYBOX: &str = "/bin/busybox";

/// A shell line that hides every cgroup, so that a jail has no tracking cgroup.
const WITHOUT_CGROUPS: &str = "umount -R /sys/fs/cgroup && exec \"$@\"";

/// A command line that runs `stockade` where a jail is hard to see.
struct Launcher<'g>(&'g Guard, Vec<String>);

impl<'g> Launcher<'g> {
    fn new(guard: &'g Guard, launcher: &[&str]) -> Self {
        Self(guard, launcher.iter().map(|word| (*word).to_owned()).collect())
    }

    /// A mount namespace of its own, prepared by a line of shell.
    fn mounts(guard: &'g Guard, shell: &str) -> Self {
        Self::new(guard, &["unshare", "--mount", "sh", "-c", shell, "sh"])
    }

    /// A process that may inspect only processes with its own user and no more capabilities.
    fn without_ptrace(guard: &'g Guard) -> Self {
        Self::new(guard, &["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"])
    }

    fn then(self, inner: Self) -> Self {
        Self(self.0, [self.1, inner.1].concat())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut launcher = Command::new(&self.1[0]);
        launcher.args(&self.1[1..]).arg(program("stockade")).args(arguments);
        launcher.env("STOCKADE_STATE_DIR", self.0.state());
        launcher
    }

    fn stockade(&self, arguments: &[&str]) -> Output {
        run_with(&mut self.command(arguments))
    }

    fn starts(&self, flags: &[&str], vmm: &[&str]) {
        let line = detached(self.0, flags, vmm);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        // No pipes: the VMM would hold them open.
        let status = self.command(&line).stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
        assert!(status.success());
    }
}

fn detached(guard: &Guard, flags: &[&str], vmm: &[&str]) -> Vec<String> {
    let (id, base) = (guard.named("vm"), guard.base().display().to_string());
    let fixed = ["run", "--detach", "--id", &id, "--exec-file", BUSYBOX, "--chroot-base-dir", &base];
    let uid = ["--uid", "12345", "--gid", "12346"];
    [&fixed[..], &uid, flags, &["--"], vmm].concat().into_iter().map(str::to_owned).collect()
}

fn root(guard: &Guard) -> PathBuf {
    guard.base().join("busybox").join(guard.named("vm")).join("root")
}

/// Asserts that from there the jail is running, and neither removed nor started again.
fn sees_it_run(from: &Launcher<'_>) {
    let guard = from.0;
    let listed = from.stockade(&["ps"]);
    assert!(listed.stdout.contains(" running "), "{listed:?}");
    let collected = from.stockade(&["gc"]);
    assert_eq!((collected.code, collected.stdout.as_str()), (0, "no abandoned jails\n"), "{collected:?}");
    let again = detached(guard, &[], &["true"]);
    let refused = from.stockade(&again.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(refused.code == 125 && refused.stderr.contains("is running"), "{refused:?}");
    assert!(root(guard).join("busybox").exists());
    assert!(said(guard, &["ps"]).contains(" running "));
}

/// The processes whose command line ends with this word.
fn processes_with(word: &str) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let ends = |pid: &i32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.trim_end_matches('\0').rsplit('\0').next() == Some(word)
    };
    pids.filter(ends).collect()
}

fn eventually(what: &str, is_true: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_true() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for the orphans of jails, whose parent is this process. Returns once it has no child.
fn reap() {
    eventually("the orphans exit", || {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) => (),
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    });
}

/// Kills the processes of a test that failed.
struct Cleanup<'g>(&'g Guard);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        let id = self.0.named("vm");
        for pid in
            [processes_with("99999"), processes_with("99123"), processes_with("99124"), processes_with(&id)]
                .concat()
        {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
        if std::thread::panicking() {
            stockade(self.0, &["rm", "--force", &id]);
        }
    }
}

fn removed(guard: &Guard) {
    said(guard, &["rm", "--force", &guard.named("vm")]);
    reap();
    assert!(!guard.base().exists() && !guard.state().exists());
}

#[test]
fn another_boot_id_does_not_end_a_running_jail() {
    privileged!(guard, {
        let _cleanup = Cleanup(&guard);
        let masked = guard.file("boot-id", "00000000-0000-0000-0000-000000000000\n");
        let mask =
            format!("mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"", masked.display());
        let elsewhere = Launcher::mounts(&guard, &mask);
        let plain = Launcher::new(&guard, &["env"]);
        let starts = [
            (Launcher::new(&guard, &["env"]), &[][..]),
            (Launcher::mounts(&guard, WITHOUT_CGROUPS), &[][..]),
            (plain, &["--new-pid-ns"][..]),
        ];
        for (start, flags) in starts {
            start.starts(flags, &["sleep", "99999"]);
            sees_it_run(&elsewhere);
            removed(&guard);
        }
    });
}

#[test]
fn a_created_jail_with_another_boot_id_lives_by_its_lock() {
    privileged!(guard, {
        let masked = guard.file("boot-id", "00000000-0000-0000-0000-000000000000\n");
        let mask =
            format!("mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"", masked.display());
        let elsewhere = Launcher::mounts(&guard, &mask);
        // Without a tracking cgroup or any other process.
        let created = guard.store().create(&testkit::probe_spec(&guard, "vm", &[])).unwrap();
        let id = created.receipt().id.to_string();
        for _ in 0..2 {
            let listed = elsewhere.stockade(&["ps"]).stdout;
            assert!(listed.contains(" created "), "{listed}");
            let found = elsewhere.stockade(&["inspect", &id]).stdout;
            assert!(found.contains("state      created"), "{found}");
            let collected = elsewhere.stockade(&["gc"]);
            assert_eq!((collected.code, collected.stdout.as_str()), (0, "no abandoned jails\n"));
        }
        created.teardown().unwrap();
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}

#[test]
fn another_boot_id_is_no_proof_of_life_either() {
    privileged!(guard, {
        let _cleanup = Cleanup(&guard);
        let state = guard.state();
        Launcher::mounts(&guard, WITHOUT_CGROUPS).starts(&[], &["sleep", "99999"]);
        let receipt = state.join(guard.named("vm")).join("receipt.json");
        let mut text: serde_json::Value = serde_json::from_slice(&fs::read(&receipt).unwrap()).unwrap();
        said(&guard, &["stop", &guard.named("vm")]);
        reap();
        // The pid and the start time of a process of the host: after a reboot they can be those of a VMM.
        let mut host = Command::new("sleep").arg("99999").spawn().unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", host.id())).unwrap();
        let started: u64 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse().unwrap();
        text["boot_id"] = "00000000-0000-0000-0000-000000000000".into();
        let vmm =
            text["steps"].as_array_mut().unwrap().iter_mut().find(|step| step["kind"] == "vmm").unwrap();
        vmm["process"] = serde_json::json!({ "pid": host.id(), "started": started });
        fs::write(&receipt, text.to_string()).unwrap();
        assert!(said(&guard, &["ps"]).contains(" abandoned "));
        assert!(said(&guard, &["gc"]).contains("removed jail directory"));
        assert_eq!(host.try_wait().unwrap(), None, "it belongs to no jail");
        host.kill().unwrap();
        host.wait().unwrap();
    });
}

#[test]
fn a_time_namespace_does_not_end_a_running_jail() {
    privileged!(guard, {
        let _cleanup = Cleanup(&guard);
        let shifted = || Launcher::new(&guard, &["unshare", "--time", "--boottime", "5000", "--fork"]);
        let here = || Launcher::new(&guard, &["env"]);
        for (start, look) in [(here(), shifted()), (shifted(), here()), (shifted(), shifted())] {
            start.starts(&[], &["sleep", "99999"]);
            sees_it_run(&look);
            removed(&guard);
        }
    });
}

#[test]
fn a_hidden_process_has_not_exited() {
    privileged!(guard, {
        let _cleanup = Cleanup(&guard);
        Launcher::new(&guard, &["env"]).starts(&[], &["sleep", "99999"]);
        for hide in ["hidepid=1,gid=12399", "hidepid=2,gid=12399"] {
            let shell = format!("mount -t proc -o {hide} proc /proc && exec \"$@\"");
            let hidden = Launcher::mounts(&guard, &shell).then(Launcher::without_ptrace(&guard));
            sees_it_run(&hidden);
            let inspected: serde_json::Value =
                serde_json::from_str(&hidden.stockade(&["inspect", "--json", &guard.named("vm")]).stdout)
                    .unwrap();
            assert_eq!(inspected["vmm"]["alive"], true);
            let members = inspected["processes"].as_array().unwrap();
            assert!(members.iter().any(|member| member["pid"] == inspected["vmm"]["pid"]), "{inspected}");
            let refused = hidden.stockade(&["rm", "--force", &guard.named("vm")]);
            assert!(refused.code == 1 && refused.stderr.contains("cannot inspect process"), "{refused:?}");
            assert!(said(&guard, &["ps"]).contains(" running "));
        }
        removed(&guard);
    });
}

#[test]
fn a_procfs_of_another_namespace_shows_the_own_processes() {
    privileged!(guard, {
        let _cleanup = Cleanup(&guard);
        // Without a procfs of its own: the pids there are those of this namespace.
        let inside = Launcher::new(&guard, &["unshare", "--pid", "--fork"]);
        let (id, program) = (guard.named("vm"), program("stockade").display().to_string());
        let line = detached(&guard, &[], &["sleep", "99999"]).join(" ");
        let own_procfs = format!("unshare --mount sh -c 'mount -t proc proc /proc && {program} ps'");
        let script = format!(
            "{program} {line} >/dev/null && {program} ps && {own_procfs} && {program} gc && {program} rm --force {id}"
        );
        let mut shell = Command::new(&inside.1[0]);
        shell.args(&inside.1[1..]).args(["sh", "-c", &script]).env("STOCKADE_STATE_DIR", guard.state());
        let output = run_with(&mut shell);
        let seen = (output.stdout.matches(" running ").count(), output.stderr.as_str());
        assert_eq!((output.code, seen), (0, (2, "")), "{output:?}");
        assert!(output.stdout.contains("no abandoned jails"), "{output:?}");
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}

#[test]
fn files_of_a_process_are_found_in_a_foreign_procfs() {
    privileged!(guard, {
        let _cleanup = Cleanup(&guard);
        let inside = Launcher::new(&guard, &["unshare", "--pid", "--fork"]);
        let (id, program) = (guard.named("vm"), program("stockade").display().to_string());
        let bound = guard.file("bound", "seen");
        let line = detached(&guard, &[], &["sleep", "99999"]).join(" ");
        // Small pids, which other processes of the host have too: one of them must not be asked in the VMM's place.
        let script = format!(
            "{program} {line} >/dev/null && {program} place {id} --how bind {bound}=bound >/dev/null && \
             {program} inspect --json {id} && {program} exec {id} -- /busybox grep -q seen /bound; code=$?; \
             {program} rm --force {id} >/dev/null; exit $code",
            bound = bound.display(),
        );
        let mut shell = Command::new(&inside.1[0]);
        shell.args(&inside.1[1..]).args(["sh", "-c", &script]).env("STOCKADE_STATE_DIR", guard.state());
        let output = run_with(&mut shell);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output:?}");
        let inspected: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
        let points: Vec<_> =
            inspected["mounts"].as_array().unwrap().iter().map(|one| &one["point"]).collect();
        assert_eq!(points, ["/", "/bound"]);
    });
}

#[test]
fn descendants_are_found_without_ptrace() {
    privileged!(guard, {
        let _cleanup = Cleanup(&guard);
        for ending in [&["stop"][..], &["rm", "--force"]] {
            let hidden = || Launcher::mounts(&guard, WITHOUT_CGROUPS).then(Launcher::without_ptrace(&guard));
            hidden().starts(
                &[],
                &[
                    "sh",
                    "-c",
                    ": >/dev/null; (/busybox setsid /busybox sleep 99123 &); exec /busybox sleep 99999",
                ],
            );
            eventually("a descendant runs", || !processes_with("99123").is_empty());
            let id = guard.named("vm");
            let ended = hidden().stockade(&[ending, &[id.as_str()]].concat());
            reap();
            let alive = processes_with("99123");
            for pid in &alive {
                let _ = kill_process(Pid::from_raw(*pid).unwrap(), Signal::KILL);
            }
            assert!(ended.code == 0 && alive.is_empty(), "{ending:?}: {ended:?}, {alive:?} runs on");
            if guard.state().exists() {
                removed(&guard);
            }
        }
    });
}

#[test]
fn descendants_that_cannot_be_seen_are_left_with_the_jail() {
    privileged!(guard, {
        let _cleanup = Cleanup(&guard);
        let hidden = || Launcher::mounts(&guard, WITHOUT_CGROUPS).then(Launcher::without_ptrace(&guard));
        // A program that its own user may not read is executed undumpable.
        let script = ": >/dev/null; /busybox cp /busybox /busybox-2; /busybox chmod 111 /busybox-2; \
                      (/busybox setsid /busybox-2 sleep 99124 &); exec /busybox sleep 99999";
        hidden().starts(&[], &["sh", "-c", script]);
        let runs = |pid: &i32| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with("/busybox-2\0")
        };
        eventually("a descendant runs", || processes_with("99124").iter().any(runs));
        let (id, pid) = (guard.named("vm"), processes_with("99124")[0]);
        let named = format!("process {pid} may be in the jail");
        let stopped = hidden().stockade(&["stop", &id]);
        assert!(stopped.code != 0 && stopped.stderr.contains(&named), "{stopped:?}");
        let left = hidden().stockade(&["rm", "--force", &id]);
        assert!(left.code != 0 && left.stderr.contains(&named), "{left:?}");
        assert!(root(&guard).join("busybox-2").exists(), "its root is left with it");
        let left = hidden().stockade(&["gc"]);
        assert!(left.code != 0 && root(&guard).join("busybox-2").exists(), "{left:?}");
        // A command that can look ends it.
        said(&guard, &["gc"]);
        reap();
        assert!(processes_with("99124").is_empty());
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}

#[test]
fn a_jail_of_another_namespace_and_boot_is_left_alone() {
    privileged!(guard, {
        let _cleanup = Cleanup(&guard);
        let masked = guard.file("boot-id", "00000000-0000-0000-0000-000000000000\n");
        // Without a cgroup, only the running executable shows that the jail lives.
        Launcher::mounts(&guard, WITHOUT_CGROUPS).starts(&[], &["sleep", "99999"]);
        let shell = format!(
            "umount -R /sys/fs/cgroup && mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"",
            masked.display()
        );
        let pids = Launcher::new(&guard, &["unshare", "--pid", "--fork", "--mount-proc"]);
        let elsewhere = pids.then(Launcher::mounts(&guard, &shell));
        assert!(elsewhere.stockade(&["ps"]).stdout.contains(" foreign "));
        assert_eq!(elsewhere.stockade(&["gc"]).stdout, "no abandoned jails\n");
        let refused = elsewhere.stockade(&["rm", "--force", &guard.named("vm")]);
        assert!(refused.stderr.contains("belongs to another pid namespace"), "{refused:?}");
        assert!(Path::new(&root(&guard)).join("busybox").exists());
        assert!(stockade(&guard, &["ps"]).stdout.contains(" running "));
        removed(&guard);
    });
}
