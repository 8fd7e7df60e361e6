//! Properties of single kinds of steps.

use super::*;

use std::os::unix::fs::{FileTypeExt, MetadataExt};

#[test]
fn a_device_node_is_its_owners_alone_and_replaces_a_file() {
    privileged!(guard, {
        let ground = Ground::with_jail(&guard);
        std::fs::write(ground.inside("null"), "in the way").unwrap();
        let step = Step::from(DeviceNode::character(JailPath::new("null").unwrap(), 1, 3, OWNER));
        apply_all(&ground, &[step]);
        let facts = std::fs::metadata(ground.inside("null")).unwrap();
        assert!(facts.file_type().is_char_device());
        assert_eq!(facts.rdev(), rustix::fs::makedev(1, 3));
        assert_eq!((facts.mode() & 0o7777, facts.uid(), facts.gid()), (0o600, OWNER.uid, OWNER.gid));
        undo_all(&ground, &ground.jail());
    });
}

#[test]
fn a_copy_has_the_sources_content_and_mode_and_the_jails_owner() {
    privileged!(guard, {
        let ground = Ground::with_jail(&guard);
        let file = guard.file("tool", &"content ".repeat(10_000));
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o750)).unwrap();
        let source = HostPath::existing(&file).unwrap();
        let path = JailPath::new("usr/bin/tool").unwrap();
        let step = Step::from(PlacedFile::copy(source, path, OWNER));
        // An older, longer file is replaced as a whole.
        std::fs::create_dir_all(ground.inside("usr/bin")).unwrap();
        std::fs::write(ground.inside("usr/bin/tool"), "older ".repeat(50_000)).unwrap();
        apply_all(&ground, &[step]);
        let placed = ground.inside("usr/bin/tool");
        assert_eq!(std::fs::read(&placed).unwrap(), std::fs::read(&file).unwrap());
        let facts = std::fs::metadata(&placed).unwrap();
        assert_eq!((facts.mode() & 0o7777, facts.uid(), facts.gid()), (0o750, OWNER.uid, OWNER.gid));
        assert_eq!(std::fs::metadata(&file).unwrap().uid(), 0, "the host's file keeps its owner");
        undo_all(&ground, &ground.jail());
    });
}

#[test]
fn holes_and_size_of_a_sparse_file_are_preserved() {
    privileged!(guard, {
        let ground = Ground::with_jail(&guard);
        let size = 10 << 30;
        let (file, directory) = (guard.directory().join("disk"), guard.directory().join("disks"));
        let disk = std::fs::File::create(&file).unwrap();
        disk.set_len(size).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&disk, b"middle", 5 << 30).unwrap();
        std::fs::create_dir(&directory).unwrap();
        std::fs::rename(&file, directory.join("disk")).unwrap();
        let source = HostPath::existing(&directory.join("disk")).unwrap();
        let path = JailPath::new("disk").unwrap();
        apply_all(&ground, &[PlacedFile::copy(source, path, OWNER).into()]);
        apply_all(&ground, &[placed_tree(&directory, "disks").into()]);
        for copied in ["disk", "disks/disk"] {
            let facts = std::fs::metadata(ground.inside(copied)).unwrap();
            assert_eq!(facts.len(), size, "{copied}");
            assert!(facts.blocks() * 512 < 1 << 20, "{copied} takes {} blocks", facts.blocks());
            let copied = std::fs::File::open(ground.inside(copied)).unwrap();
            let mut content = [0; 8];
            std::os::unix::fs::FileExt::read_exact_at(&copied, &mut content, (5 << 30) - 1).unwrap();
            assert_eq!(&content, b"\0middle\0");
        }
        undo_all(&ground, &ground.jail());
    });
}

#[test]
fn files_that_the_kernel_generates_are_copied_whole() {
    privileged!(guard, {
        let ground = Ground::with_jail(&guard);
        // The first has size 0, the second a size larger than its content.
        for file in ["/proc/version", "/sys/kernel/uevent_seqnum"] {
            let source = HostPath::existing(Path::new(file)).unwrap();
            let path = JailPath::new("generated").unwrap();
            apply_all(&ground, &[PlacedFile::copy(source, path, OWNER).into()]);
            let copied = std::fs::read(ground.inside("generated")).unwrap();
            assert!(copied.ends_with(b"\n"), "{file}: {copied:?}");
            assert_eq!(copied.len(), std::fs::read(file).unwrap().len(), "{file}");
        }
        undo_all(&ground, &ground.jail());
    });
}

#[test]
fn known_processor_files_are_copied_and_others_omitted() {
    privileged!(guard, {
        let ground = Ground::with_jail(&guard);
        let source = cpu(&guard, &["size", "level", "secret"]);
        let step = CpuInfo {
            source: source.clone().into(),
            target: JailPath::new("sys/cpu0").unwrap(),
            owner: OWNER,
        };
        let step = Step::from(step);
        // Twice, since a dead jail may have left the first copy.
        apply_all(&ground, &[step.clone(), step.clone()]);
        let at = ground.inside("sys/cpu0");
        let read = |file: &str| std::fs::read_to_string(at.join(file)).unwrap();
        assert_eq!(read("cache/index1/size"), "index1 size\n", "the first line alone");
        assert_eq!(read("cache/index0/level"), "index0 level\n");
        assert_eq!(read("regs/identification/midr_el1"), "0x00000000410fd0c0\n");
        assert_eq!(std::fs::read_dir(at.join("cache")).unwrap().count(), 2);
        assert_eq!(std::fs::read_dir(at.join("cache/index0")).unwrap().count(), 2, "nothing else");
        let facts = std::fs::metadata(at.join("cache/index0/size")).unwrap();
        assert_eq!((facts.uid(), facts.gid()), (OWNER.uid, OWNER.gid));

        std::fs::remove_file(source.join("regs/identification/midr_el1")).unwrap();
        let error = step.apply(&ground.ctx).expect_err("every VMM needs it");
        assert_eq!(error.kind(), stockade::ErrorKind::NotFound, "{error}");
        undo_all(&ground, &ground.jail());
    });
}

#[test]
fn nothing_is_written_through_a_symlink_in_the_jail() {
    privileged!(guard, {
        let ground = Ground::with_jail(&guard);
        let outside = guard.directory().join("outside");
        std::fs::create_dir(&outside).unwrap();
        let precious = guard.file("precious", "precious");
        std::os::unix::fs::symlink(&outside, ground.inside("dev")).unwrap();
        std::os::unix::fs::symlink(&precious, ground.inside("image")).unwrap();
        let directory = Step::from(Directory { path: JailPath::new("dev").unwrap(), owner: OWNER });
        directory.apply(&ground.ctx).expect_err("a symbolic link at a directory's path is refused");
        let node = DeviceNode::character(JailPath::new("dev/null").unwrap(), 1, 3, OWNER);
        Step::from(node).apply(&ground.ctx).expect_err("a symbolic link on the way to a node is refused");
        let source = HostPath::existing(&guard.file("new", "new")).unwrap();
        let path = JailPath::new("image").unwrap();
        let file = Step::from(PlacedFile::copy(source, path, OWNER));
        // The symbolic link itself is replaced, never followed.
        apply_all(&ground, &[file]);
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
        assert_eq!(std::fs::metadata(&precious).unwrap().uid(), 0);
        assert_eq!(std::fs::metadata(&outside).unwrap().uid(), 0);
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "nothing was created outside");
        undo_all(&ground, &ground.jail());
        assert!(precious.exists() && outside.exists(), "removal follows no symbolic link");
    });
}

#[test]
fn a_foreign_jail_directory_is_neither_used_nor_removed() {
    privileged!(guard, {
        let ground = Ground::new(&guard);
        let steps = ground.jail();
        apply_all(&ground, &steps[..1]);
        let foreign = ground.layout().jail_dir().as_path().join("root");
        std::fs::create_dir_all(&foreign).unwrap();
        std::fs::write(foreign.join("image"), "another's").unwrap();
        let error = steps[1].apply(&ground.ctx).expect_err("it is in the way");
        assert_eq!(error.kind(), stockade::ErrorKind::InTheWay);
        assert!(matches!(steps[1].undo(&ground.ctx), UndoOutcome::Kept(_)));
        assert_eq!(std::fs::read_to_string(foreign.join("image")).unwrap(), "another's");
        std::fs::remove_dir_all(ground.layout().jail_dir()).unwrap();
        undo_all(&ground, &steps);
    });
}

#[test]
fn a_base_that_existed_before_remains() {
    privileged!(guard, {
        let ground = Ground::new(&guard);
        std::fs::create_dir(guard.base()).unwrap();
        apply_all(&ground, &ground.jail());
        undo_all(&ground, &ground.jail());
        assert_eq!(std::fs::read_dir(guard.base()).unwrap().count(), 0, "only the base itself remains");
        std::fs::remove_dir(guard.base()).unwrap();
    });
}

#[test]
fn a_tree_of_thousands_of_nested_directories_is_removed() {
    privileged!(guard, {
        let ground = Ground::with_jail(&guard);
        // By file descriptor: the path of the deepest one is far longer than PATH_MAX.
        let root = std::fs::File::open(ground.inside("")).unwrap();
        let mut here: rustix::fd::OwnedFd = root.into();
        for depth in 0..3_000 {
            rustix::fs::mkdirat(&here, "d", rustix::fs::Mode::RWXU).unwrap();
            if depth % 100 == 0 {
                let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
                rustix::fs::openat(&here, "f", flags, rustix::fs::Mode::RUSR).unwrap();
            }
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
            here = rustix::fs::openat(&here, "d", flags, rustix::fs::Mode::empty()).unwrap();
        }
        drop(here);
        undo_all(&ground, &ground.jail());
    });
}

#[test]
fn a_mount_below_the_jail_is_never_crossed() {
    privileged!(guard, {
        let ground = Ground::with_jail(&guard);
        let images = guard.directory().join("images");
        std::fs::create_dir(&images).unwrap();
        std::fs::write(images.join("precious"), "precious").unwrap();
        let inside = ground.inside("images");
        std::fs::create_dir(&inside).unwrap();
        rustix::mount::mount_bind(&images, &inside).unwrap();
        let jail = &ground.jail()[1];
        let UndoOutcome::Left(reason) = jail.undo(&ground.ctx) else { panic!("the mount must be reported") };
        assert!(reason.contains("images") && reason.contains("mounted"), "{reason}");
        assert_eq!(std::fs::read_to_string(images.join("precious")).unwrap(), "precious");
        rustix::mount::unmount(&inside, rustix::mount::UnmountFlags::empty()).unwrap();
        undo_all(&ground, &ground.jail());
    });
}

#[test]
fn a_ramfs_is_its_owners_and_a_foreign_mount_instead_is_left() {
    privileged!(guard, {
        let ground = Ground::with_jail(&guard);
        let step = Step::from(Ramfs {
            path: JailPath::new("ramfs").unwrap(),
            name: guard.named("ramfs"),
            size: 1 << 20,
            owner: OWNER,
        });
        apply_all(&ground, std::slice::from_ref(&step));
        let at = ground.inside("ramfs");
        let facts = std::fs::metadata(&at).unwrap();
        assert_eq!((facts.mode() & 0o7777, facts.uid(), facts.gid()), (0o700, OWNER.uid, OWNER.gid));
        assert_eq!(step.undo(&ground.ctx), UndoOutcome::Removed);
        std::fs::create_dir(&at).unwrap();
        rustix::mount::mount("none", &at, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
        assert!(matches!(step.undo(&ground.ctx), UndoOutcome::Left(_)), "a tmpfs is not the jail's ramfs");
        rustix::mount::unmount(&at, rustix::mount::UnmountFlags::empty()).unwrap();
        undo_all(&ground, &ground.jail());
    });
}

#[test]
fn a_foreign_namespace_with_the_same_name_is_kept() {
    privileged!(guard, {
        let ground = Ground::new(&guard);
        let name = guard.named("net");
        let add = testkit::run_with(std::process::Command::new("ip").args(["netns", "add", &name]));
        assert_eq!(add.code, 0, "{add:?}");
        let step = Step::from(NamedNetns { name: name.parse().unwrap() });
        let error = step.apply(&ground.ctx).expect_err("the name is taken");
        assert_eq!(error.kind(), stockade::ErrorKind::InTheWay);
        assert!(matches!(step.undo(&ground.ctx), UndoOutcome::Kept(_)));
        let delete = testkit::run_with(std::process::Command::new("ip").args(["netns", "delete", &name]));
        assert_eq!(delete.code, 0, "it still exists for its creator: {delete:?}");
    });
}

#[test]
fn a_namespace_is_known_to_ip_and_has_only_a_loopback() {
    privileged!(guard, {
        let ground = Ground::new(&guard);
        let name = guard.named("net");
        let step = Step::from(NamedNetns { name: name.parse().unwrap() });
        apply_all(&ground, std::slice::from_ref(&step));
        let links = testkit::run_with(
            std::process::Command::new("ip").args(["netns", "exec", &name, "ip", "-o", "link"]),
        );
        assert_eq!(links.stdout.lines().count(), 1, "{links:?}");
        assert!(links.stdout.contains("lo:"), "{links:?}");
        undo_all(&ground, &[step]);
    });
}

#[test]
fn a_cgroup_is_emptied_of_processes_before_it_is_removed() {
    privileged!(guard, {
        let ground = Ground::new(&guard);
        for step in [Step::from(cgroup_v1(&guard, &["pids.max=64"])), v2(&guard)] {
            apply_all(&ground, std::slice::from_ref(&step));
            let directory = match &step {
                Step::CgroupV1(step) => step.directory(),
                Step::CgroupV2(step) => step.directory(),
                _ => unreachable!(),
            };
            std::fs::create_dir(directory.join("below")).unwrap();
            let mut sleepers = Vec::new();
            for cgroup in [directory.clone(), directory.join("below")] {
                let sleeper = std::process::Command::new("sleep").arg("600").spawn().unwrap();
                std::fs::write(cgroup.join("cgroup.procs"), sleeper.id().to_string()).unwrap();
                sleepers.push(sleeper);
            }
            assert_eq!(step.undo(&ground.ctx), UndoOutcome::Removed);
            assert!(!directory.as_path().exists());
            for mut sleeper in sleepers {
                use std::os::unix::process::ExitStatusExt;
                assert_eq!(sleeper.wait().unwrap().signal(), Some(9));
            }
        }
    });
}

fn v2(guard: &Guard) -> Step {
    let path = Path::new(guard.name()).join("jail");
    CgroupV2 { hierarchy: unified_mount(), path, controllers: vec![], settings: vec![], exclusive: true }
        .into()
}

#[test]
fn cpusets_are_inherited_and_every_setting_is_written() {
    privileged!(guard, {
        let ground = Ground::new(&guard);
        let mut step = cgroup_v1(&guard, &["cpuset.cpus=0"]);
        step.path = Path::new(guard.name()).join("nested").join("jail");
        let own = Step::from(step.clone());
        apply_all(&ground, std::slice::from_ref(&own));
        let read = |file: &str| std::fs::read_to_string(step.directory().join(file)).unwrap();
        assert_eq!(read("cpuset.cpus").trim(), "0");
        let parent = step.directory().as_path().parent().unwrap().join("cpuset.cpus");
        assert!(!std::fs::read_to_string(parent).unwrap().trim().is_empty(), "the parent inherited too");
        undo_all(&ground, &[own]);
    });
}

#[test]
fn a_link_is_refused_if_the_file_got_privileges_since_the_plan() {
    privileged!(guard, {
        let ground = Ground::with_jail(&guard);
        let file = guard.file("tool", "");
        let (source, path) = (HostPath::existing(&file).unwrap(), JailPath::new("tool").unwrap());
        let link = PlacedFile { how: FileHow::Link, ..PlacedFile::copy(source.clone(), path, OWNER) };
        let step = Step::from(link);
        for privilege in testkit::Privilege::ALL {
            privilege.give_to(&file);
            let error = step.apply(&ground.ctx).unwrap_err().to_string();
            let line = format!(
                "'{source}' cannot be a hard link in the jail, which would keep its {}; copy it instead",
                privilege.text()
            );
            assert_eq!(error, line);
            assert!(!ground.inside("tool").exists());
            std::fs::remove_file(&file).unwrap();
            guard.file("tool", "");
        }
        apply_all(&ground, &[step]);
        assert_eq!(std::fs::metadata(ground.inside("tool")).unwrap().nlink(), 2);
        undo_all(&ground, &ground.jail());
    });
}
