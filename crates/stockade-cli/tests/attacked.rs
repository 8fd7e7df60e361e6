//! A static program attacks from inside a jail for a fixed time, and harms nothing of the host.
//!
//! It attacks as an exec process of root, as a VMM with a procfs in its jail, as a VMM with the uid of exec processes,
//! and as a VMM that owns every file of its tree.
#![allow(clippy::unwrap_used, missing_docs)]

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::XattrFlags;
use serde_json::Value;
use testkit::{Guard, Output, privileged, program, run_with, said};

/// The duration of each attack.
const SECONDS: u64 = 4;
/// The jails' uid. No other process has it, because processes of one uid may attack each other.
const UID: &str = "61234";
const OWNER: Option<u32> = Some(61_234);
/// Time limit of each command in seconds.
const TIME_LIMIT: &str = "30";

/// Objects that the attacks must not change: a file of root, the host's programs, and a key of the launcher.
struct Canaries {
    directory: PathBuf,
    programs: Vec<(PathBuf, Vec<u8>, u32)>,
}

impl Canaries {
    fn new(guard: &Guard) -> Self {
        let directory = guard.directory().join("canaries");
        std::fs::create_dir(&directory).unwrap();
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::write(directory.join("secret"), "of root").unwrap();
        let look = |name: &str| {
            let path = program(name);
            (path.clone(), std::fs::read(&path).unwrap(), mode_of(&path))
        };
        Self { directory, programs: ["stockade", "stockade-probe"].map(look).into() }
    }

    fn check_unharmed(&self) {
        assert_eq!(std::fs::read_to_string(self.directory.join("secret")).unwrap(), "of root");
        assert_eq!(std::fs::read_dir(&self.directory).unwrap().count(), 1);
        for (path, content, mode) in &self.programs {
            assert!(std::fs::read(path).unwrap() == *content, "{} was changed", path.display());
            assert_eq!(mode_of(path), *mode, "{}", path.display());
        }
    }
}

fn mode_of(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode()
}

/// A jail with the probe as its executable, a procfs, a directory of the host, and files of a careless administrator.
struct Attacked {
    id: String,
    root: PathBuf,
    share: PathBuf,
}

impl Attacked {
    fn new(guard: &Guard, name: &str) -> Self {
        let id = guard.named(name);
        let share = guard.directory().join("share");
        std::fs::create_dir(&share).unwrap();
        let (base, probe) =
            (guard.base().display().to_string(), program("stockade-probe").display().to_string());
        let bind = format!("{}=share:bind", share.display());
        let arguments = ["create", "--id", &id, "--exec-file", &probe, "--chroot-base-dir", &base];
        let owner = ["--uid", UID, "--gid", UID];
        said(
            guard,
            &[&arguments[..], &owner, &["--place", "/proc=proc:bind", "--place", &bind, "--ramfs", "1M"]]
                .concat(),
        );
        let root = guard.base().join("stockade-probe").join(&id).join("root");
        std::fs::create_dir(root.join("bin")).unwrap();
        chown(root.join("bin"), OWNER, OWNER).unwrap();
        let attacked = Self { id, root, share };
        attacked.leave_set_uid_programs();
        attacked
    }

    /// Adds programs with set-uid bits and file capabilities, as a careless administrator might.
    fn leave_set_uid_programs(&self) {
        let files = ["set-uid", "bin/set-uid", "capable"].map(|name| self.root.join(name));
        for file in files.iter().chain([&self.share.join("set-uid")]) {
            std::fs::copy(program("stockade-probe"), file).unwrap();
            std::fs::set_permissions(file, PermissionsExt::from_mode(0o4755)).unwrap();
        }
        let capable = self.root.join("capable");
        std::fs::set_permissions(&capable, PermissionsExt::from_mode(0o755)).unwrap();
        // `vfs_cap_data` of revision 2: effective, all capabilities permitted.
        let value: [u8; 20] = [1, 0, 0, 2, 255, 255, 255, 255, 0, 0, 0, 0, 255, 1, 0, 0, 0, 0, 0, 0];
        rustix::fs::setxattr(&capable, "security.capability", &value, XattrFlags::empty()).unwrap();
    }

    /// Fails on set-uid files of root that [`Self::leave_set_uid_programs`] did not create.
    fn check_no_new_set_uid_file(&self) {
        let known = ["set-uid", "bin/set-uid"].map(|name| self.root.join(name));
        let mut left = vec![self.root.clone(), self.share.clone()];
        while let Some(directory) = left.pop() {
            for entry in std::fs::read_dir(directory).unwrap().flatten() {
                let (path, facts) = (entry.path(), entry.metadata().unwrap());
                if facts.is_dir() {
                    left.push(path);
                } else if facts.mode() & 0o6000 != 0 && facts.uid() == 0 {
                    assert!(
                        known.contains(&path) || path == self.share.join("set-uid"),
                        "{}",
                        path.display()
                    );
                }
            }
        }
    }

    fn start(&self, guard: &Guard) {
        said(guard, &["start", &self.id, "--", &format!("attack={SECONDS}"), "sleep"]);
    }

    /// The report that an attacking VMM prints at its end.
    fn report(&self, guard: &Guard) -> Value {
        for _ in 0..500 {
            let log = run_with(&mut bounded(guard, &["logs", &self.id])).stdout;
            if log.contains("\"attacks\"") {
                return attacks_in(&log);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the attacker has not reported");
    }
}

/// A command under timeout(1), which kills it at the limit and returns 124.
fn bounded(guard: &Guard, arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", TIME_LIMIT]).arg(program("stockade")).args(arguments);
    command.env("STOCKADE_STATE_DIR", guard.state());
    command
}

fn attacks_in(text: &str) -> Value {
    let line = text.lines().find(|line| line.contains("\"attacks\"")).expect("a report of attacks");
    serde_json::from_str::<Value>(line).unwrap()["attacks"].clone()
}

/// Checks that the attacks were tried and none did harm.
fn check_harmless(who: &str, attacks: &Value, tried: &[&str]) {
    testkit::tell(&format!("{who}, {SECONDS} s: {attacks}"));
    assert_eq!(attacks["harm"], serde_json::json!({}), "{who}");
    for name in tried {
        assert!(attacks["tried"][name].as_u64().unwrap_or(0) > 0, "{name} was not tried: {attacks}");
    }
}

/// Runs each kind of exec in turn until the attack ends. Each one exits, and its output is never forged.
fn exec_while_attacked(guard: &Guard, id: &str) -> u32 {
    let (end, mut visits) = (Instant::now() + Duration::from_secs(SECONDS), 0);
    let probe = program("stockade-probe").display().to_string();
    while Instant::now() < end {
        let check = |arguments: &[&str]| -> Output {
            let output = run_with(&mut bounded(guard, arguments));
            assert!(![124, 137].contains(&output.code), "{arguments:?}: {} {}", output.code, output.stderr);
            // Only the command's own program has these arguments.
            let all = format!("{}{}", output.stdout, output.stderr);
            assert!(!all.contains("Usage: stockade"), "{arguments:?} executed stockade: {all}");
            output
        };
        let honest = |arguments: &[&str], wanted: &str| {
            let output = check(arguments);
            assert_eq!(
                (output.code, output.stdout.as_str()),
                (0, wanted),
                "{arguments:?}: {}",
                output.stderr
            );
        };
        honest(
            &["exec", "--host-program", &probe, id, "--", "args"],
            "{\"args\":[\"stockade-probe\",\"args\"]}\n",
        );
        honest(&["exec", id, "--", "/stockade-probe", "args"], "{\"args\":[\"/stockade-probe\",\"args\"]}\n");
        // The jail may have replaced this file.
        check(&["exec", id, "--", "/bin/victim", "args"]);
        check(&["exec", "--root", id, "--", "/bin/victim", "args"]);
        let audit: Value = serde_json::from_str(&check(&["audit", "--probe", "--json", id]).stdout).unwrap();
        assert_eq!(audit["inside"]["uid"].as_u64(), OWNER.map(u64::from));
        assert_eq!(audit["inside"]["escapes"].as_array().unwrap().len(), 10);
        visits += 5;
    }
    visits
}

const ON_PROCESSES: [&str; 6] = [
    "process-trace",
    "process-memory",
    "process-executable-write",
    "process-get-descriptor",
    "process-root",
    "execute-set-uid",
];

#[test]
fn an_exec_process_of_root_does_no_harm() {
    privileged!(guard, {
        let (canaries, jail) = (Canaries::new(&guard), Attacked::new(&guard, "root"));
        said(&guard, &["start", &jail.id, "--", "sleep"]);
        let attack = format!("attack={SECONDS}");
        let output =
            run_with(&mut bounded(&guard, &["exec", "--root", &jail.id, "--", "/stockade-probe", &attack]));
        assert_eq!(output.code, 0, "{}", output.stderr);
        let tried = [
            "set-uid-fchmodat2",
            "set-uid-openat",
            "set-uid-io-uring",
            "core-pattern",
            "mount",
            "uid-0",
            "user-keyring",
        ];
        check_harmless("an exec process of root", &attacks_in(&output.stdout), &tried);
        jail.check_no_new_set_uid_file();
        canaries.check_unharmed();
        said(&guard, &["rm", "--force", &jail.id]);
    });
}

#[test]
fn a_vmm_with_a_procfs_does_no_harm() {
    privileged!(guard, {
        let (canaries, jail) = (Canaries::new(&guard), Attacked::new(&guard, "proc"));
        jail.start(&guard);
        let attacks = jail.report(&guard);
        check_harmless("a VMM with a procfs", &attacks, &ON_PROCESSES);
        jail.check_no_new_set_uid_file();
        canaries.check_unharmed();
        said(&guard, &["rm", "--force", &jail.id]);
    });
}

#[test]
fn a_vmm_with_the_uid_of_exec_processes_does_no_harm() {
    privileged!(guard, {
        let (canaries, jail) = (Canaries::new(&guard), Attacked::new(&guard, "same"));
        jail.start(&guard);
        let visits = exec_while_attacked(&guard, &jail.id);
        let attacks = jail.report(&guard);
        check_harmless(&format!("a VMM of the uid of {visits} visitors"), &attacks, &ON_PROCESSES);
        jail.check_no_new_set_uid_file();
        canaries.check_unharmed();
        said(&guard, &["rm", "--force", &jail.id]);
    });
}

#[test]
fn a_vmm_that_owns_every_file_of_its_tree_does_no_harm() {
    privileged!(guard, {
        let (canaries, jail) = (Canaries::new(&guard), Attacked::new(&guard, "owner"));
        let mut left = vec![jail.root.clone()];
        while let Some(directory) = left.pop() {
            for entry in std::fs::read_dir(&directory).unwrap().flatten() {
                let facts = entry.metadata().unwrap();
                // Mount points belong to stockade. The set-uid files of root are the attacker's targets.
                if facts.mode() & 0o4000 == 0 && facts.mode() & 0o777 != 0 {
                    std::os::unix::fs::lchown(entry.path(), OWNER, OWNER).unwrap();
                }
                left.extend(facts.is_dir().then(|| entry.path()));
            }
        }
        jail.start(&guard);
        let (placed, end) =
            (guard.file("placed", "of the host"), Instant::now() + Duration::from_secs(SECONDS));
        let (mut rounds, source) = (0, format!("{}=trap/file", placed.display()));
        while Instant::now() < end {
            // It may succeed or fail: the jail exchanges the directory at the same time.
            for arguments in [
                &["place", &jail.id, &source][..],
                &["exec", "--root", &jail.id, "--", "/bin/victim", "args"],
            ] {
                let output = run_with(&mut bounded(&guard, arguments));
                assert!(![124, 137].contains(&output.code), "{arguments:?}: {}", output.stderr);
            }
            run_with(&mut bounded(&guard, &["unplace", &jail.id, "/trap/file"]));
            rounds += 1;
        }
        let attacks = jail.report(&guard);
        check_harmless(&format!("a VMM that owns its tree, {rounds} rounds"), &attacks, &ON_PROCESSES);
        assert_eq!(std::fs::read_to_string(&placed).unwrap(), "of the host");
        jail.check_no_new_set_uid_file();
        canaries.check_unharmed();
        said(&guard, &["rm", "--force", &jail.id]);
    });
}

#[test]
fn the_vmm_of_the_drop_in_does_no_harm() {
    privileged!(guard, {
        let canaries = Canaries::new(&guard);
        let (id, base) = (guard.named("jailer"), guard.base());
        let root = base.join("stockade-probe").join(&id).join("root");
        std::fs::create_dir_all(&root).unwrap();
        let share = guard.directory().join("share");
        std::fs::create_dir(&share).unwrap();
        let jail = Attacked { id: id.clone(), root: root.clone(), share };
        std::fs::create_dir(root.join("bin")).unwrap();
        jail.leave_set_uid_programs();
        // The launcher has inheritable and ambient capabilities and a key in its session keyring.
        let script = "mkdir -p \"$0/proc\" && mount --bind /proc \"$0/proc\" && exec \"$@\"";
        let probe = program("stockade-probe");
        let mut drop_in = Command::new("timeout");
        drop_in
            .args(["--signal=KILL", TIME_LIMIT, "unshare", "--mount", "sh", "-c", script])
            .arg(&root)
            .arg(&probe);
        drop_in.arg("odd").arg(program("jailer")).args([
            "--id",
            &id,
            "--uid",
            UID,
            "--gid",
            UID,
            "--exec-file",
        ]);
        drop_in.arg(&probe).arg("--chroot-base-dir").arg(&base).args(["--", &format!("attack={SECONDS}")]);
        let output = run_with(&mut drop_in);
        assert_eq!(output.code, 0, "{}", output.stderr);
        let mut attacks = attacks_in(&output.stdout);
        // The VMM keeps the launcher's scheduling, as with Firecracker's jailer, so it is real-time already.
        attacks["harm"].as_object_mut().unwrap().remove("real-time");
        check_harmless("the VMM of the drop-in", &attacks, &ON_PROCESSES);
        jail.check_no_new_set_uid_file();
        canaries.check_unharmed();
        // The drop-in has no teardown. The kernel removed the procfs with the mount namespace.
        std::fs::remove_dir_all(&base).unwrap();
    });
}
