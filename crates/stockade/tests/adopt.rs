//! Adopted jails, which `jailer` creates afterwards: nothing of them is left.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::io::BufRead;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use stockade::spec::{HostPath, JailPath, Owner};
use stockade::steps::{Ramfs, Step};
use stockade::{AdoptOptions, AdoptSpec, Adopted, Error, JailState, Layout, Store};
use testkit::{
    Guard, booted_with, cgroup_v1_mount, mount_lines_with, privileged, probe_spec, program, run_with,
};

const OWNER: Owner = Owner { uid: 12_345, gid: 12_346 };
const VMM: &str = "stockade-probe";

fn spec_in(base: &Path, id: &str) -> AdoptSpec {
    let base = HostPath::future_directory(base).unwrap();
    let jail = Some(Layout::named(base.clone(), VMM, id).unwrap());
    AdoptSpec { name: id.parse().unwrap(), base, jail, options: AdoptOptions::default() }
}

fn spec(guard: &Guard, id: &str) -> AdoptSpec {
    spec_in(&guard.base(), &guard.named(id))
}

fn root(adopted: &Adopted) -> PathBuf {
    adopted.receipt().root().as_path().to_owned()
}

/// Runs `jailer` for an adopted jail, with the VMM in the background. Returns the VMM's directory in `/proc`.
fn start(adopted: &Adopted, more: &[&str], arguments: &[&str]) -> PathBuf {
    let layout = &adopted.receipt().layout;
    let mut jailer = Command::new(program("jailer"));
    jailer.args(["--id", layout.jail_dir().as_path().file_name().unwrap().to_str().unwrap()]);
    jailer.arg("--exec-file").arg(program(VMM)).arg("--chroot-base-dir").arg(layout.base().as_path());
    jailer.args(["--uid", "12345", "--gid", "12346", "--daemonize"]).args(more).arg("--").args(arguments);
    let output = run_with(&mut jailer);
    assert_eq!(output.code, 0, "{output:?}");
    let pid = fs::read_to_string(root(adopted).join(format!("{VMM}.pid"))).unwrap();
    Path::new("/proc").join(pid.trim())
}

/// Whether a process has exited. It can still be a zombie, for example as a child of this test.
fn has_exited(process: &Path) -> bool {
    fs::read_to_string(process.join("stat")).is_ok_and(|stat| stat.contains(") Z ")) || !process.exists()
}

#[test]
fn a_root_whose_executable_runs_elsewhere_is_left() {
    privileged!(guard, {
        let adopted = guard.store().adopt(&spec(&guard, "jail")).unwrap();
        let vmm = start(&adopted, &[], &["sleep"]);
        let executable = root(&adopted).join(VMM);
        // A process with another root, as one of another pid namespace seems to be.
        let mut unseen = Command::new(&executable).arg("sleep").stdout(Stdio::null()).spawn().unwrap();
        let report = adopted.teardown().unwrap();
        assert!(has_exited(&vmm));
        assert!(report.left.iter().any(|left| left.reason.contains("executes")), "{report:?}");
        assert!(executable.exists());
        unseen.kill().unwrap();
        unseen.wait().unwrap();
        assert!(guard.store().collect(false).unwrap().is_clean());
        assert!(!executable.exists());
    });
}

#[test]
fn a_jail_that_jailer_created_is_removed_with_its_running_vmm() {
    privileged!(guard, {
        let mut spec = spec(&guard, "jail");
        spec.options.netns = Some(guard.named("net").parse().unwrap());
        let adopted = guard.store().adopt(&spec).unwrap();
        let netns = format!("/run/netns/{}", guard.named("net"));
        assert!(Path::new(&netns).exists());
        let vmm = start(&adopted, &["--netns", &netns], &["sleep"]);
        assert!(!has_exited(&vmm));
        let report = adopted.teardown().unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert!(has_exited(&vmm));
    });
}

#[test]
fn cgroups_below_any_parent_are_removed_with_their_processes() {
    privileged!(guard, {
        let test = "cgroups_below_any_parent_are_removed_with_their_processes";
        let Some(pids) = booted_with(cgroup_v1_mount("pids"), test, "cgroup v1") else { return };
        let parent = format!("{}/deep", guard.name());
        let mut adopted = guard.store().adopt(&spec(&guard, "jail")).unwrap();
        let cgroups = vec!["pids.max=20".parse().unwrap()];
        let wants =
            AdoptOptions { cgroups, parent_cgroup: Some(parent.parse().unwrap()), ..AdoptOptions::default() };
        adopted.add(&wants).unwrap();
        let vmm = start(&adopted, &["--cgroup", "pids.max=20", "--parent-cgroup", &parent], &["sleep"]);
        let cgroup = pids.join(&parent).join(guard.named("jail"));
        assert!(cgroup.exists());
        assert!(adopted.teardown().unwrap().is_clean());
        assert!(!cgroup.exists() && has_exited(&vmm));
        assert!(pids.join(&parent).exists(), "other jails may be in it");
    });
}

#[test]
fn all_objects_are_on_the_receipt_before_their_creation() {
    privileged!(guard, {
        let mut spec = spec(&guard, "jail");
        spec.options.netns = Some(guard.named("net").parse().unwrap());
        spec.options.ramfs = Some(ramfs(&guard));
        let adopted = guard.store().adopt(&spec).unwrap();
        let on_disk = guard.store().read(&spec.name).unwrap().unwrap();
        assert_eq!(on_disk.state(), JailState::Created);
        let kinds: Vec<String> = on_disk.steps.iter().map(ToString::to_string).collect();
        for wanted in ["directory", "jail directory", "ramfs", "network namespace", "processes in"] {
            assert!(kinds.iter().any(|kind| kind.starts_with(wanted)), "{wanted} in {kinds:?}");
        }
        assert!(kinds.last().unwrap().starts_with("processes"), "they are killed first");
        let facts = fs::metadata(root(&adopted).join("ramfs")).unwrap();
        assert_eq!((facts.uid(), facts.gid()), (OWNER.uid, OWNER.gid));
        assert!(adopted.teardown().unwrap().is_clean());
    });
}

fn ramfs(guard: &Guard) -> Ramfs {
    let path = JailPath::new("ramfs").unwrap();
    Ramfs { path, name: guard.named("ramfs"), size: 1 << 20, owner: OWNER }
}

#[test]
fn objects_requested_twice_are_created_once() {
    privileged!(guard, {
        let wants = AdoptOptions {
            netns: Some(guard.named("net").parse().unwrap()),
            ramfs: Some(ramfs(&guard)),
            ..AdoptOptions::default()
        };
        let mut adopted =
            guard.store().adopt(&AdoptSpec { options: wants.clone(), ..spec(&guard, "jail") }).unwrap();
        let steps = adopted.receipt().steps.clone();
        adopted.add(&wants).unwrap();
        assert_eq!(adopted.receipt().steps, steps);
        assert_eq!(mount_lines_with(&guard.named("ramfs")).len(), 1);
    });
}

#[test]
fn a_namespace_of_others_remains_and_a_longer_name_is_another() {
    privileged!(guard, {
        let (others, own) = (guard.named("net0"), guard.named("net"));
        assert_eq!(run_with(Command::new("ip").args(["netns", "add", &others])).code, 0);
        for (id, name) in [("a", &others), ("b", &own)] {
            let mut spec = spec(&guard, id);
            spec.options.netns = Some(name.parse().unwrap());
            let adopted = guard.store().adopt(&spec).unwrap();
            assert!(Path::new("/run/netns").join(name).exists());
            assert!(adopted.teardown().unwrap().is_clean());
        }
        assert!(!Path::new("/run/netns").join(own).exists());
        assert!(Path::new("/run/netns").join(&others).exists(), "it existed before");
        // Unless the caller expects it as the jail's.
        let mut adopted = guard.store().adopt(&spec(&guard, "c")).unwrap();
        adopted.expect_netns(&others.parse().unwrap()).unwrap();
        assert!(adopted.teardown().unwrap().is_clean());
        assert!(!Path::new("/run/netns").join(&others).exists());
    });
}

#[test]
fn objects_marked_for_another_receipt_remain() {
    privileged!(guard, {
        let mut other = probe_spec(&guard, "jail", &[]);
        other.netns = stockade::spec::Netns::Make(guard.named("net").parse().unwrap());
        let created = guard.store().create(&other).unwrap();
        let mut same = spec(&guard, "jail");
        assert!(matches!(guard.store().adopt(&same), Err(Error::Locked { .. })), "the name is taken");
        same.name = guard.named("alias").parse().unwrap();
        let mut adopted = guard.store().adopt(&same).unwrap();
        assert!(matches!(adopted.make_root(), Err(Error::InTheWay { .. })));
        adopted.expect_netns(&guard.named("net").parse().unwrap()).unwrap();
        let report = adopted.teardown().unwrap();
        assert!(report.is_clean(), "{report:?}");
        assert!(created.root().join(VMM).as_path().exists());
        assert!(Path::new("/run/netns").join(guard.named("net")).exists());
        assert!(created.teardown().unwrap().is_clean());
    });
}

#[test]
fn a_placed_file_replaces_a_symlink_and_does_not_follow_it() {
    privileged!(guard, {
        let mut adopted = guard.store().adopt(&spec(&guard, "jail")).unwrap();
        let source = guard.file("image", "new");
        let placed = adopted.place(&source, OWNER);
        assert!(placed.is_err(), "there is no root yet");
        adopted.make_root().unwrap();
        // A symbolic link to a file of the host, which the jail's uid could create.
        let victim = guard.file("victim", "old");
        std::os::unix::fs::symlink(&victim, root(&adopted).join("image")).unwrap();
        assert_eq!(adopted.place(&source, OWNER).unwrap().to_string(), "/image");
        let placed = fs::symlink_metadata(root(&adopted).join("image")).unwrap();
        assert!(placed.is_file());
        assert_eq!((placed.uid(), placed.gid()), (OWNER.uid, OWNER.gid));
        assert_eq!(
            (fs::read_to_string(&victim).unwrap().as_str(), victim.metadata().unwrap().uid()),
            ("old", 0)
        );
        assert_eq!(source.metadata().unwrap().uid(), 0);
    });
}

#[test]
fn a_jail_without_a_valid_id_is_removed_too() {
    privileged!(guard, {
        let base = HostPath::future_directory(&guard.base()).unwrap();
        let odd = format!("{}_odd.id", guard.name());
        let jail = Some(Layout::named(base.clone(), VMM, &odd).unwrap());
        let name = guard.named("odd").parse().unwrap();
        let mut adopted = guard
            .store()
            .adopt(&AdoptSpec { name, base: base.clone(), jail, options: AdoptOptions::default() })
            .unwrap();
        adopted.make_root().unwrap();
        assert!(base.join(VMM).join(&odd).join("root").as_path().is_dir());
        let read = guard.store().read(&guard.named("odd").parse().unwrap()).unwrap().unwrap();
        assert_eq!(&read, adopted.receipt());
        drop(adopted);
        for bad in ["", ".", "..", "a/b", "a/", "/a"] {
            assert!(Layout::named(base.clone(), VMM, bad).is_err(), "{bad:?}");
        }
    });
}

#[test]
fn a_failure_leaves_nothing() {
    privileged!(guard, {
        let mut spec = spec(&guard, "jail");
        spec.options.netns = Some(guard.named("net").parse().unwrap());
        // A ramfs on a file is impossible.
        let mut ramfs = ramfs(&guard);
        ramfs.path = JailPath::new("file/ramfs").unwrap();
        let mut adopted = guard.store().adopt(&spec).unwrap();
        adopted.make_root().unwrap();
        fs::write(root(&adopted).join("file"), "").unwrap();
        let before = adopted.receipt().steps.clone();
        assert!(adopted.add(&AdoptOptions { ramfs: Some(ramfs), ..AdoptOptions::default() }).is_err());
        assert_eq!(adopted.receipt().steps, before);
        assert!(before.iter().any(|step| matches!(step, Step::NamedNetns(_))));
        assert!(adopted.teardown().unwrap().is_clean());
    });
}

#[test]
fn an_abandoned_jail_is_collected_with_its_running_vmm() {
    privileged!(guard, {
        let mut owning = Command::new(std::env::current_exe().unwrap());
        owning.args(["--exact", "owning_process", "--ignored", "--nocapture"]).stdout(Stdio::piped());
        let mut owning = owning
            .env("ADOPT_BASE", guard.base())
            .env("ADOPT_STATE", guard.state())
            .env("ADOPT_ID", guard.named("jail"))
            .spawn()
            .unwrap();
        let output = std::io::BufReader::new(owning.stdout.take().unwrap());
        let vmm =
            output.lines().map(Result::unwrap).find_map(|line| line.strip_prefix("vmm ").map(PathBuf::from));
        let vmm = vmm.expect("the owning process prints the VMM's directory");
        assert!(guard.store().collect(false).unwrap().jails.is_empty(), "the owning process is alive");
        owning.kill().unwrap();
        owning.wait().unwrap();
        assert!(!has_exited(&vmm));
        let collection = guard.store().collect(false).unwrap();
        assert!(collection.is_clean(), "{collection:?}");
        assert_eq!(collection.jails.len(), 1);
        assert!(has_exited(&vmm));
    });
}

/// Not a test, but the process that the test above kills.
#[test]
#[ignore = "it is run by an_abandoned_jail_is_collected_with_its_running_vmm"]
fn owning_process() {
    let of = |name: &str| std::env::var(name).unwrap();
    let mut spec = spec_in(Path::new(&of("ADOPT_BASE")), &of("ADOPT_ID"));
    spec.options.netns = Some(of("ADOPT_ID").parse().unwrap());
    let mut adopted = Store::new(Path::new(&of("ADOPT_STATE"))).unwrap().adopt(&spec).unwrap();
    adopted.make_root().unwrap();
    println!("vmm {}", start(&adopted, &[], &["sleep"]).display());
    loop {
        std::thread::park();
    }
}
