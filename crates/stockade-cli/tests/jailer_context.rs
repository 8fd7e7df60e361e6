//! The class with which Firecracker's tests create jails: a test for each of its behaviours (s01 to s11) and faults.
//! `docs/jailer-context.md` maps its members to stockade's.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FileType, Mode};
use stockade::spec::{
    CgroupSetting, HostPath, JailBuilder, JailPath, JailSpec, Netns, NetnsName, Owner, ResourceLimit,
};
use stockade::steps::Ramfs;
use stockade::{
    AdoptOptions, AdoptSpec, Created, ExitStatus, How, Jail, JailState, Layout, Placement, Streams,
};
use testkit::{Guard, cgroup_v1_mount, cgroup_v2_mount, mount_lines_with, privileged, program, run_with};

const VMM: &str = "stockade-probe";
const OWNER: Owner = Owner { uid: 12_345, gid: 12_346 };

fn builder(guard: &Guard, id: &str) -> JailBuilder {
    let builder = JailSpec::builder(guard.named(id), program(VMM)).base(guard.base());
    builder.uid(OWNER.uid).gid(OWNER.gid)
}

fn create(guard: &Guard, builder: &JailBuilder) -> Created {
    guard.store().create(&builder.build().unwrap()).unwrap()
}

fn on_host(created: &Created, inside: impl AsRef<Path>) -> PathBuf {
    created.root().join(inside).as_path().to_owned()
}

fn owner(path: &Path) -> (u32, u32) {
    let facts = fs::symlink_metadata(path).unwrap();
    (facts.uid(), facts.gid())
}

fn netns_file(name: &str) -> PathBuf {
    name.parse::<NetnsName>().unwrap().path().as_path().to_owned()
}

fn texts(arguments: &[std::ffi::OsString]) -> Vec<&str> {
    arguments.iter().map(|argument| argument.to_str().unwrap()).collect()
}

/// The mount point and the version of the hierarchy that has this controller.
fn hierarchy(controller: &str) -> (PathBuf, u32) {
    if let Some(mount) = cgroup_v1_mount(controller) {
        return (mount, 1);
    }
    let mount = cgroup_v2_mount().unwrap_or_else(|| panic!("no hierarchy has {controller}"));
    let offered = fs::read_to_string(mount.join("cgroup.controllers")).unwrap();
    assert!(offered.split_whitespace().any(|name| name == controller), "no hierarchy has {controller}");
    (mount, 2)
}

fn is_gone(pid: i32) -> bool {
    // A zombie has no root. It remains until its parent, perhaps this test, waits for it.
    fs::read_link(format!("/proc/{pid}/root")).is_err()
}

fn remains(guard: &Guard) -> bool {
    guard.base().exists() || guard.state().exists()
}

#[test]
fn s01_fields_and_defaults() {
    privileged!(guard, {
        let mut spec = JailSpec::builder(guard.named("x"), program(VMM)).build().unwrap();
        assert_eq!((spec.owner.uid, spec.owner.gid), (1234, 1234));
        assert_eq!(spec.base.to_string(), "/srv/jailer");
        assert_eq!((&spec.netns, spec.daemonize, spec.new_pid_ns), (&Netns::Host, false, false));
        assert!(spec.cgroups.is_empty() && spec.cgroup_version.is_none() && spec.parent_cgroup.is_none());
        assert_eq!((spec.limits.file_size, spec.limits.open_files, spec.ramfs), (None, 2048, None));
        assert!(spec.arguments.is_empty());
        // Every field can be changed afterwards.
        spec.owner = OWNER;
        spec.base = HostPath::future_directory(&guard.base()).unwrap();
        spec.netns = Netns::Make(guard.named("x").parse().unwrap());
        spec.new_pid_ns = true;
        spec.cgroups = vec!["pids.max=9".parse::<CgroupSetting>().unwrap()];
        spec.parent_cgroup = Some(guard.name().parse().unwrap());
        spec.limits.extend(["no-file=99".parse::<ResourceLimit>().unwrap()]);
        spec.arguments = vec!["exit=3".into()];
        let mut running = guard.store().create(&spec).unwrap().launch(Streams::default()).unwrap();
        assert_eq!(running.wait().unwrap(), ExitStatus::Exited(3));
        assert!(running.teardown().unwrap().is_clean());
    });
}

#[test]
fn s02_the_parameter_list_of_jailer() {
    privileged!(guard, {
        let (id, probe, base) = (guard.named("list"), program(VMM), guard.base());
        let bare = JailSpec::builder(&id, &probe).base(&base).jailer_arguments();
        let (probe, base) = (probe.to_str().unwrap(), base.to_str().unwrap());
        let always =
            ["--id", &id, "--exec-file", probe, "--uid", "1234", "--gid", "1234", "--chroot-base-dir", base];
        assert_eq!(texts(&bare), always, "what is not set is left out");
        let full = builder(&guard, "list").netns("n1").daemonize(true).new_pid_ns(true).parent_cgroup("p");
        let full = full.cgroup_version(2).cgroup("pids.max=9").cgroup("cpu.weight=5");
        let full = full.resource_limit("no-file=9").resource_limit("fsize=1").arguments(["--api-sock", "s"]);
        let full = full.jailer_arguments();
        let expected = "--netns /run/netns/n1 --daemonize --new-pid-ns --parent-cgroup p --cgroup-version 2 --cgroup \
                        pids.max=9 --cgroup cpu.weight=5 --resource-limit no-file=9 --resource-limit fsize=1 -- \
                        --api-sock s";
        assert_eq!(texts(&full)[10..].join(" "), expected);
        // The drop-in accepts the list, or refuses it with its own message.
        fs::create_dir(guard.base()).unwrap();
        let right = builder(&guard, "list").arguments(["exit=7"]).jailer_arguments();
        assert_eq!(run_with(Command::new(program("jailer")).args(&right)).code, 7);
        let wrong = builder(&guard, "list").uid("no:body").jailer_arguments();
        let refused = run_with(Command::new(program("jailer")).args(&wrong));
        assert!(refused.code != 0 && refused.stderr.contains("Invalid uid: no:body"), "{refused:?}");
        fs::remove_dir_all(guard.base()).unwrap();
    });
}

#[test]
fn s03_an_argument_renames_the_socket() {
    privileged!(guard, {
        let socket = |arguments: &[&str]| {
            let builder = builder(&guard, "s").profile("firecracker").arguments(arguments);
            builder.build().unwrap().socket().map(|path| path.to_string())
        };
        assert_eq!(socket(&[]).as_deref(), Some("/run/firecracker.socket"));
        assert_eq!(socket(&["--api-sock", "api.sock"]).as_deref(), Some("/api.sock"));
    });
}

#[test]
fn s04_the_jails_own_directory() {
    privileged!(guard, {
        let layout = Layout::new(&builder(&guard, "paths").build().unwrap());
        let jail = guard.base().join(VMM).join(guard.named("paths"));
        assert_eq!(layout.jail_dir().as_path(), jail, "BASE / name of the executable / ID");
    });
}

#[test]
fn s05_the_paths_in_the_jails_directory() {
    privileged!(guard, {
        let builder = builder(&guard, "paths").profile("firecracker").ramfs(1 << 20);
        let root = guard.base().join(VMM).join(guard.named("paths")).join("root");
        let created = create(&guard, &builder);
        assert_eq!(created.root().as_path(), root);
        let socket = created.receipt().spec.socket().unwrap();
        assert_eq!(created.receipt().layout.on_host(&socket).as_path(), root.join("run/firecracker.socket"));
        assert!(root.join("ramfs").is_dir());
        created.teardown().unwrap();
    });
}

#[test]
fn s06_a_file_is_placed_under_its_name() {
    privileged!(guard, {
        let mut created = create(&guard, &builder(&guard, "place"));
        // A device becomes a node that the jail's owner may read and write.
        let disk = guard.directory().join("disk");
        let device = rustix::fs::makedev(7, 250);
        rustix::fs::mknodat(rustix::fs::CWD, &disk, FileType::BlockDevice, Mode::empty(), device).unwrap();
        assert_eq!(created.place(&disk).unwrap().to_string(), "/disk");
        let node = on_host(&created, "disk");
        let facts = fs::symlink_metadata(&node).unwrap();
        assert!(facts.file_type().is_block_device());
        assert_eq!((facts.rdev(), facts.permissions().mode() & 0o777), (device, 0o600));
        assert_eq!(owner(&node), (OWNER.uid, OWNER.gid));
        fs::remove_file(disk).unwrap();
        // A file of the jail's owner on the same filesystem becomes a hard link and replaces an existing file.
        let image = guard.file("image", "one");
        std::os::unix::fs::chown(&image, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
        for _ in 0..2 {
            let placed = created.place(&image).unwrap();
            assert_eq!((placed.to_string().as_str(), placed.how), ("/image", How::Link));
        }
        let linked = fs::metadata(on_host(&created, "image")).unwrap();
        assert_eq!(linked.ino(), fs::metadata(&image).unwrap().ino());
        // A file of another filesystem is copied.
        let placed = created.place("/proc/version").unwrap();
        assert_eq!((placed.to_string().as_str(), placed.how), ("/version", How::Copy));
        assert_eq!(owner(&on_host(&created, "version")), (OWNER.uid, OWNER.gid));
        created.teardown().unwrap();
    });
}

#[test]
fn s07_a_file_is_copied_to_its_own_path() {
    privileged!(guard, {
        let mut created = create(&guard, &builder(&guard, "copy"));
        let placed =
            created.place(Placement::new("/etc/passwd").named("/etc/passwd").how(How::Copy)).unwrap();
        assert_eq!(placed.to_string(), "/etc/passwd");
        let copy = on_host(&created, "etc/passwd");
        assert_eq!(fs::read(&copy).unwrap(), fs::read("/etc/passwd").unwrap());
        assert_eq!(owner(&copy), (OWNER.uid, OWNER.gid));
        created.teardown().unwrap();
    });
}

#[test]
fn s08_a_network_namespace_has_a_path_and_a_name_for_ip() {
    privileged!(guard, {
        let name = guard.named("net");
        assert_eq!(netns_file(&name).to_str().unwrap(), format!("/run/netns/{name}"));
        let created = create(&guard, &builder(&guard, "net").netns(&name));
        let inside = run_with(Command::new("ip").args(["netns", "exec", &name, "ip", "-o", "link"]));
        assert_eq!((inside.code, inside.stdout.lines().count()), (0, 1), "loopback alone: {inside:?}");
        created.teardown().unwrap();
        let spec = builder(&guard, "none").build().unwrap();
        assert_eq!(spec.netns, Netns::Host, "none unless asked for");
    });
}

fn adopt_spec(guard: &Guard, id: &str) -> AdoptSpec {
    let base = HostPath::future_directory(&guard.base()).unwrap();
    let layout = Layout::named(base.clone(), VMM, &guard.named(id)).unwrap();
    let ramfs = Ramfs {
        path: JailPath::new("ramfs").unwrap(),
        name: format!("ramfs-{}", guard.named(id)),
        size: 1 << 20,
        owner: OWNER,
    };
    let wants = AdoptOptions {
        netns: Some(guard.named(id).parse().unwrap()),
        ramfs: Some(ramfs),
        ..AdoptOptions::default()
    };
    AdoptSpec { name: guard.named(id).parse().unwrap(), base, jail: Some(layout), options: wants }
}

#[test]
fn s09_objects_for_jailer_are_created_before_it_runs() {
    privileged!(guard, {
        let adopted = guard.store().adopt(&adopt_spec(&guard, "setup")).unwrap();
        assert!(guard.base().is_dir());
        let ramfs = adopted.receipt().root().join("ramfs").as_path().to_owned();
        assert_eq!(owner(&ramfs), (OWNER.uid, OWNER.gid));
        let kind = run_with(Command::new("stat").args(["-f", "-c", "%T"]).arg(&ramfs)).stdout;
        assert_eq!(kind.trim(), "ramfs");
        assert!(netns_file(&guard.named("setup")).exists());
        assert!(adopted.teardown().unwrap().is_clean());
        // An existing namespace is used and stays.
        let name = guard.named("setup");
        assert_eq!(run_with(Command::new("ip").args(["netns", "add", &name])).code, 0);
        guard.store().adopt(&adopt_spec(&guard, "setup")).unwrap().teardown().unwrap();
        assert!(netns_file(&name).exists());
        assert_eq!(run_with(Command::new("ip").args(["netns", "del", &name])).code, 0);
    });
}

#[test]
fn s10_whether_a_jail_has_a_ramfs() {
    privileged!(guard, {
        for (builder, has) in [(builder(&guard, "r"), false), (builder(&guard, "r").ramfs(1 << 20), true)] {
            let created = create(&guard, &builder);
            assert_eq!(created.receipt().spec.ramfs.is_some(), has);
            assert_eq!(!mount_lines_with(&format!("ramfs-{}", guard.named("r"))).is_empty(), has);
            created.teardown().unwrap();
        }
    });
}

#[test]
fn s11_teardown_removes_everything_by_drop_too_and_twice() {
    privileged!(guard, {
        let (name, (mount, _)) = (guard.named("all"), hierarchy("pids"));
        let builder = builder(&guard, "all").netns(&name).ramfs(1 << 20).cgroup("pids.max=9");
        let builder = builder.parent_cgroup(guard.name()).arguments(["exit=0"]);
        for by_drop in [false, true] {
            let created = create(&guard, &builder);
            let cgroup = mount.join(guard.name()).join(&name);
            assert!(cgroup.is_dir() && netns_file(&name).exists());
            if by_drop {
                drop(created);
            } else {
                let mut running = created.launch(Streams::default()).unwrap();
                running.wait().unwrap();
                assert!(running.teardown().unwrap().is_clean());
                assert!(mount.join(guard.name()).is_dir(), "the parent, which others may share, stays");
            }
            assert!(!cgroup.exists() && !netns_file(&name).exists() && !remains(&guard));
            // A second teardown finds nothing and reports no error.
            assert!(guard.store().open(&name.parse().unwrap()).unwrap().is_none());
            assert_eq!(guard.store().collect(false).unwrap().jails, []);
        }
    });
}

#[test]
fn fault_1_a_vmm_and_its_children_do_not_survive_teardown() {
    privileged!(guard, {
        for builder in [builder(&guard, "kill"), builder(&guard, "kill").new_pid_ns(true)] {
            let running = create(&guard, &builder.arguments(["spawn=2", "sleep"]));
            let running = running.launch(Streams::default()).unwrap();
            let pid = running.pid();
            assert!(running.teardown().unwrap().is_clean());
            assert!(is_gone(pid));
        }
    });
}

#[test]
fn fault_2_cgroups_of_any_version_and_parent_are_removed() {
    privileged!(guard, {
        let (mount, version) = hierarchy("pids");
        for parent in [guard.name().to_owned(), format!("{}/deep/er", guard.name())] {
            let builder = builder(&guard, "cg").cgroup("pids.max=9").cgroup_version(version);
            let running = create(&guard, &builder.parent_cgroup(&parent).arguments(["sleep"]));
            let running = running.launch(Streams::default()).unwrap();
            let cgroup = mount.join(&parent).join(guard.named("cg"));
            let members = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
            assert_eq!(members.trim(), running.pid().to_string());
            assert!(running.teardown().unwrap().is_clean());
            assert!(!cgroup.exists());
        }
    });
}

#[test]
fn fault_3_a_namespace_with_a_longer_name_is_another() {
    privileged!(guard, {
        let (short, long) = (guard.named("vm-1"), guard.named("vm-10"));
        assert_eq!(run_with(Command::new("ip").args(["netns", "add", &long])).code, 0);
        let created = create(&guard, &builder(&guard, "exact").netns(&short));
        assert!(netns_file(&short).exists(), "it was made though the longer one was there");
        created.teardown().unwrap();
        assert!(!netns_file(&short).exists() && netns_file(&long).exists());
        assert_eq!(run_with(Command::new("ip").args(["netns", "del", &long])).code, 0);
    });
}

#[test]
fn fault_4_symbolic_links_in_the_tree_are_not_followed() {
    privileged!(guard, {
        let mut created = create(&guard, &builder(&guard, "links"));
        let canary = guard.file("canary", "untouched");
        let (image, before) = (guard.file("image", "new"), owner(&canary));
        // As the jail's uid could: a symbolic link in place of the file, and one in place of a directory.
        std::os::unix::fs::symlink(&canary, on_host(&created, "image")).unwrap();
        std::os::unix::fs::symlink(guard.directory(), on_host(&created, "way")).unwrap();
        created.place(&image).unwrap();
        assert!(created.place(Placement::new(&image).named("way/canary")).is_err());
        assert_eq!((fs::read_to_string(&canary).unwrap().as_str(), owner(&canary)), ("untouched", before));
        assert!(created.teardown().unwrap().is_clean());
        assert!(canary.exists());
    });
}

#[test]
fn fault_5_the_hosts_file_keeps_its_owner() {
    privileged!(guard, {
        let image = guard.file("image", "shared by two");
        let mut one = create(&guard, &builder(&guard, "one"));
        let mut two = create(&guard, &builder(&guard, "two").uid(22_222));
        for jail in [&mut one, &mut two] {
            assert_ne!(jail.place(&image).unwrap().how, How::Link);
        }
        assert_eq!(owner(&image), (0, 0));
        assert_eq!(owner(&on_host(&one, "image")).0, OWNER.uid);
        assert_eq!(owner(&on_host(&two, "image")).0, 22_222);
        one.teardown().unwrap();
        two.teardown().unwrap();
    });
}

#[test]
fn fault_6_removal_does_not_cross_into_a_mount() {
    privileged!(guard, {
        let images = guard.directory().join("images");
        fs::create_dir(&images).unwrap();
        fs::write(images.join("root.img"), "precious").unwrap();
        let created = create(&guard, &builder(&guard, "mount"));
        let (id, inside) = (guard.named("mount"), on_host(&created, "images"));
        fs::create_dir(&inside).unwrap();
        rustix::mount::mount_bind(&images, &inside).unwrap();
        let report = created.teardown().unwrap();
        assert!(report.left.iter().any(|left| left.reason.contains("mounted")), "{report:?}");
        assert_eq!(fs::read_to_string(images.join("root.img")).unwrap(), "precious");
        rustix::mount::unmount(&inside, rustix::mount::UnmountFlags::empty()).unwrap();
        let Some(Jail::Exited(dead) | Jail::Abandoned(dead)) =
            guard.store().open(&id.parse().unwrap()).unwrap()
        else {
            panic!("what is left is on the receipt")
        };
        assert!(dead.teardown().unwrap().is_clean());
        assert_eq!(fs::read_to_string(images.join("root.img")).unwrap(), "precious");
    });
}

/// `stockade run` with every kind of object in the jail.
fn run_everything(guard: &Guard, command: &mut Command, vmm: &[&str]) -> std::process::Child {
    command.args(["run", "--id", &guard.named("run"), "--exec-file"]).arg(program(VMM));
    command.arg("--chroot-base-dir").arg(guard.base()).args([
        "--netns",
        &guard.named("net"),
        "--ramfs",
        "1M",
    ]);
    command.args(["--cgroup", "pids.max=9", "--parent-cgroup", guard.name(), "--place", "/etc/passwd", "--"]);
    command.args(vmm).env("STOCKADE_STATE_DIR", guard.state()).stdin(Stdio::null());
    command.stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn fault_7_no_program_replaces_a_system_call() {
    privileged!(guard, {
        let trace = guard.directory().join("trace");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", "trace=execve,execveat", "-o"]).arg(&trace).arg(program("stockade"));
        let ended = run_everything(&guard, &mut strace, &["exit=0"]).wait_with_output().unwrap();
        assert!(ended.status.success());
        let trace = fs::read_to_string(trace).unwrap();
        let programs = trace.lines().filter(|line| line.contains("exec") && line.ends_with("= 0")).count();
        assert_eq!(programs, 2, "the command itself and the VMM:\n{trace}");
    });
}

#[test]
fn fault_8_leftovers_of_a_crash_are_found_and_removed() {
    privileged!(guard, {
        let mut run = run_everything(&guard, &mut Command::new(program("stockade")), &["clock", "sleep"]);
        let id = guard.named("run").parse().unwrap();
        let mut said = [0; 1];
        std::io::Read::read_exact(run.stdout.as_mut().unwrap(), &mut said).unwrap();
        run.kill().unwrap();
        run.wait().unwrap();
        let store = guard.store();
        let receipt = store.read(&id).unwrap().unwrap();
        assert_eq!(receipt.state(), JailState::Running, "its VMM goes on, and is known");
        let Some(Jail::Running(running)) = store.open(&id).unwrap() else { panic!("it runs") };
        assert!(running.teardown().unwrap().is_clean());
        assert!(!remains(&guard) && !netns_file(&guard.named("net")).exists());
    });
}

#[test]
fn fault_9_a_value_has_one_source() {
    privileged!(guard, {
        let builder = builder(&guard, "one").profile("firecracker").arguments(["--api-sock", "a.sock"]);
        let before = builder.build().unwrap().socket();
        let (first, second) = (builder.jailer_arguments(), builder.jailer_arguments());
        assert_eq!(first, second, "working the list out changes nothing");
        assert_eq!(builder.build().unwrap().socket(), before, "nor does it change the socket");
    });
}
