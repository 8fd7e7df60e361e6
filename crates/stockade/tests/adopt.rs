//! Adopted jails, which `jailer` creates afterwards: nothing of them is left.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::io::BufRead;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use stockade::spec::{HostPath, JailPath, Owner};
use stockade::steps::{Ramfs, Step};
use stockade::{
    AdoptOptions, AdoptSpec, Adopted, Error, JailState, Layout, Placement, PlacementError, Sharing, Store,
};
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

/// A named pipe of the host.
fn fifo(path: &Path) {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
}

fn owner_of(path: &Path) -> (u32, u32) {
    let facts = fs::symlink_metadata(path).unwrap();
    (facts.uid(), facts.gid())
}

const JAILS: (u32, u32) = (OWNER.uid, OWNER.gid);

#[test]
fn a_named_pipe_and_a_socket_are_shared_with_the_jail() {
    privileged!(guard, {
        let mut adopted = guard.store().adopt(&spec(&guard, "jail")).unwrap();
        adopted.make_root().unwrap();
        let (pipe, socket) = (guard.directory().join("pipe"), guard.directory().join("socket"));
        fifo(&pipe);
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for source in [&pipe, &socket] {
            let refused = adopted.share(source, OWNER, Sharing::Never);
            assert!(matches!(refused, Err(Error::Placement(PlacementError::NotShared(..)))), "{refused:?}");
            let placed = adopted.share(source, OWNER, Sharing::OwnDirectory).unwrap().unwrap();
            let inside = root(&adopted).join(source.file_name().unwrap());
            assert_eq!(placed.path.absolute(), Path::new("/").join(source.file_name().unwrap()));
            assert_eq!(owner_of(&inside), JAILS);
            assert_eq!(
                fs::symlink_metadata(&inside).unwrap().ino(),
                fs::symlink_metadata(source).unwrap().ino()
            );
        }
    });
}

#[test]
fn a_named_pipe_of_others_is_not_given_away() {
    privileged!(guard, {
        let mut adopted = guard.store().adopt(&spec(&guard, "jail")).unwrap();
        adopted.make_root().unwrap();
        let (theirs, linked) = (guard.directory().join("theirs"), guard.directory().join("linked"));
        fifo(&theirs);
        std::os::unix::fs::chown(&theirs, Some(4321), Some(4321)).unwrap();
        fifo(&linked);
        fs::hard_link(&linked, guard.directory().join("other-name")).unwrap();
        for (path, before) in [(&theirs, (4321, 4321)), (&linked, (0, 0))] {
            let refused = adopted.share(path, OWNER, Sharing::OwnDirectory);
            assert!(matches!(refused, Err(Error::Placement(PlacementError::NotShared(..)))), "{refused:?}");
            assert_eq!(owner_of(path), before);
            assert!(adopted.share(path, OWNER, Sharing::Always).unwrap().is_some());
            assert_eq!(owner_of(path), JAILS);
        }
    });
}

#[test]
fn files_in_the_jails_own_directory_are_shared() {
    privileged!(guard, {
        let mut adopted = guard.store().adopt(&spec(&guard, "jail")).unwrap();
        adopted.make_root().unwrap();
        let own = root(&adopted).parent().unwrap().to_owned();
        let (log, elsewhere) = (own.join("log"), guard.file("elsewhere", ""));
        fs::write(&log, "").unwrap();
        assert!(adopted.share(&log, OWNER, Sharing::Never).unwrap().is_none());
        assert!(adopted.share(&elsewhere, OWNER, Sharing::OwnDirectory).unwrap().is_none());
        for _ in 0..2 {
            adopted
                .share(Placement::new(&log).named("logs/log"), OWNER, Sharing::OwnDirectory)
                .unwrap()
                .unwrap();
        }
        fs::write(root(&adopted).join("logs/log"), "written inside").unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "written inside");
        assert_eq!((owner_of(&log), owner_of(&elsewhere)), (JAILS, (0, 0)));
        let left: Vec<_> = fs::read_dir(root(&adopted).join("logs")).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "no temporary name remains");
        // Where nothing can be placed, no owner changes.
        fs::create_dir(root(&adopted).join("elsewhere")).unwrap();
        assert!(adopted.share(&elsewhere, OWNER, Sharing::Always).is_err());
        assert_eq!(owner_of(&elsewhere), (0, 0));
        fs::remove_dir(root(&adopted).join("elsewhere")).unwrap();
        adopted.share(&elsewhere, OWNER, Sharing::Always).unwrap().unwrap();
        assert_eq!(owner_of(&elsewhere), JAILS);
    });
}

#[test]
fn files_that_others_use_or_with_privileges_are_not_shared() {
    privileged!(guard, {
        let mut adopted = guard.store().adopt(&spec(&guard, "jail")).unwrap();
        adopted.make_root().unwrap();
        let own = root(&adopted).parent().unwrap().to_owned();
        let image = guard.file("image", "of all");
        fs::hard_link(&image, own.join("image")).unwrap();
        fs::write(own.join("suid"), "").unwrap();
        fs::set_permissions(own.join("suid"), std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
        std::os::unix::fs::symlink(&image, own.join("symlink")).unwrap();
        for name in ["image", "suid", "symlink"] {
            assert!(adopted.share(own.join(name), OWNER, Sharing::OwnDirectory).unwrap().is_none(), "{name}");
        }
        assert!(adopted.share(own.join("suid"), OWNER, Sharing::Always).unwrap().is_none());
        assert_eq!((owner_of(&image), owner_of(&own.join("suid"))), ((0, 0), (0, 0)));
        assert_eq!(fs::metadata(own.join("suid")).unwrap().mode() & 0o7777, 0o4755);
    });
}

#[test]
fn another_users_symlink_is_copied_through_and_never_shared() {
    privileged!(guard, {
        let mut adopted = guard.store().adopt(&spec(&guard, "jail")).unwrap();
        adopted.make_root().unwrap();
        let (image, link) = (guard.file("image", "of all"), guard.directory().join("link"));
        std::os::unix::fs::symlink(&image, &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(77), Some(77)).unwrap();
        assert!(adopted.share(&link, OWNER, Sharing::OwnDirectory).unwrap().is_none());
        adopted.place(Placement::new(&link).named("image"), OWNER).unwrap();
        assert_eq!(fs::read_to_string(root(&adopted).join("image")).unwrap(), "of all");
        let refused = adopted.share(&link, OWNER, Sharing::Always).unwrap_err();
        assert!(matches!(refused, Error::Placement(PlacementError::ForeignLink(..))), "{refused}");
        assert_eq!(owner_of(&image), (0, 0));
    });
}

#[test]
fn a_path_through_the_jails_root_follows_no_symlink() {
    privileged!(guard, {
        let mut adopted = guard.store().adopt(&spec(&guard, "jail")).unwrap();
        adopted.make_root().unwrap();
        let (victims, root) = (guard.directory().join("victims"), root(&adopted));
        fs::create_dir(&victims).unwrap();
        fs::write(victims.join("secret"), "untouched").unwrap();
        std::os::unix::fs::symlink(&victims, root.join("directory")).unwrap();
        std::os::unix::fs::symlink(victims.join("secret"), root.join("secret")).unwrap();
        for source in [root.join("directory/secret"), root.join("secret")] {
            for sharing in [Sharing::OwnDirectory, Sharing::Always] {
                let refused = adopted.share(Placement::new(&source).named("x"), OWNER, sharing);
                assert!(
                    matches!(refused, Err(Error::Placement(PlacementError::SymlinkInJail(_)))),
                    "{refused:?}"
                );
            }
            assert!(adopted.place(Placement::new(&source).named("x"), OWNER).is_err());
        }
        assert!(!root.join("x").exists());
        assert_eq!(owner_of(&victims.join("secret")), (0, 0));
        // A file of the jail itself can be shared and copied.
        fs::write(root.join("own"), "of the jail").unwrap();
        adopted
            .share(Placement::new(root.join("own")).named("shared"), OWNER, Sharing::OwnDirectory)
            .unwrap()
            .unwrap();
        adopted.place(Placement::new(root.join("own")).named("copy"), OWNER).unwrap();
        assert_eq!(fs::read_to_string(root.join("copy")).unwrap(), "of the jail");
    });
}

#[test]
fn a_lone_root_leaves_the_jails_beside_it() {
    privileged!(guard, {
        let base = HostPath::future_directory(&guard.base()).unwrap();
        let beside = guard.store().adopt(&spec(&guard, "beside")).unwrap();
        let lone = |name: &str, below: &str| AdoptSpec {
            name: guard.named(name).parse().unwrap(),
            base: base.clone(),
            jail: Some(Layout::lone_root(base.clone(), Path::new(below)).unwrap()),
            options: AdoptOptions::default(),
        };
        let mut adopted = guard.store().adopt(&lone("lone", VMM)).unwrap();
        adopted.make_root().unwrap();
        adopted.make_root().unwrap();
        let image = guard.file("image", "content");
        adopted.place(&image, OWNER).unwrap();
        assert!(base.join(VMM).join("root/image").as_path().is_file());
        let mut second = guard.store().adopt(&lone("second", VMM)).unwrap();
        assert!(matches!(second.make_root(), Err(Error::InTheWay { .. })));
        assert!(second.teardown().unwrap().is_clean());
        let log = root(&beside).parent().unwrap().join("log");
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        fs::write(&log, "").unwrap();
        assert!(adopted.share(&log, OWNER, Sharing::OwnDirectory).unwrap().is_none(), "it is another jail's");
        assert!(adopted.teardown().unwrap().is_clean());
        assert!(!base.join(VMM).join("root").as_path().exists() && log.exists());
        // Below a directory that another user owns, nothing is created.
        let theirs = root(&beside);
        fs::create_dir(&theirs).unwrap();
        std::os::unix::fs::chown(&theirs, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
        let below = format!("{VMM}/{}/root/x", guard.named("beside"));
        assert!(matches!(guard.store().adopt(&lone("third", &below)), Err(Error::InTheWay { .. })));
        assert!(beside.teardown().unwrap().is_clean());
    });
}

#[test]
fn a_race_for_a_source_in_the_root_reaches_no_file_of_the_host() {
    privileged!(guard, {
        let mut adopted = guard.store().adopt(&spec(&guard, "jail")).unwrap();
        adopted.make_root().unwrap();
        let (victims, root) = (guard.directory().join("victims"), root(&adopted));
        fs::create_dir(&victims).unwrap();
        fs::write(victims.join("file"), "secret").unwrap();
        // The jail's uid exchanges a directory, and a file, with symbolic links to those of the host.
        fs::create_dir(root.join("directory")).unwrap();
        std::os::unix::fs::symlink(&victims, root.join("directory-link")).unwrap();
        std::os::unix::fs::symlink(victims.join("file"), root.join("file-link")).unwrap();
        for own in [root.join("file"), root.join("directory/file")] {
            fs::write(own, "own").unwrap();
        }
        let is_done = std::sync::atomic::AtomicBool::new(false);
        let exchange = |name: &str| {
            let (one, other) = (root.join(name), root.join(format!("{name}-link")));
            let cwd = rustix::fs::CWD;
            let _ = rustix::fs::renameat_with(cwd, one, cwd, other, rustix::fs::RenameFlags::EXCHANGE);
        };
        let mut place = |number: usize| {
            let source = root.join(["file", "directory/file"][number % 2]);
            let placement = Placement::new(&source).named("placed");
            let outcome = if number.is_multiple_of(3) {
                adopted.share(placement, OWNER, Sharing::Always).map(|shared| shared.is_some())
            } else {
                adopted.place(placement, OWNER).map(|_| true)
            };
            outcome.is_ok_and(|is_placed| is_placed).then(|| fs::read_to_string(root.join("placed")).unwrap())
        };
        let contents: Vec<String> = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                    exchange("file");
                    exchange("directory");
                }
            });
            let contents = (0..4000).filter_map(&mut place).collect();
            is_done.store(true, std::sync::atomic::Ordering::Relaxed);
            contents
        });
        assert!(!contents.is_empty(), "some placements succeed");
        assert!(contents.iter().all(|content| content == "own"), "a file of the host is in the jail");
        let facts = victims.join("file").metadata().unwrap();
        assert_eq!((owner_of(&victims.join("file")), facts.nlink()), ((0, 0), 1));
    });
}
