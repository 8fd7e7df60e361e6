//! Files that resist: read-only subvolumes, immutable and append-only files, project quotas, encrypted directories,
//! whiteouts and leases. Placement, removal of a placement, and removal of the jail succeed, or name the cause.
#![allow(clippy::unwrap_used, missing_docs)]

#[allow(dead_code, reason = "the other tests of placements need more of it")]
#[path = "placement/common.rs"]
mod common;
#[path = "placement/filesystem.rs"]
mod filesystem;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use stockade::{Created, How, Placement};
use testkit::{Guard, privileged};

use common::*;
use filesystem::{can_make, is_alone, mounted, run};

/// Runs a program as the jail's uid.
fn as_jail(program: &str, arguments: &[&dyn AsRef<OsStr>]) {
    let mut command = Command::new(program);
    for argument in arguments {
        command.arg(argument.as_ref());
    }
    let output = command.uid(OWNER.uid).gid(OWNER.gid).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn chattr(change: &str, path: &Path) {
    run("chattr", &[Path::new(change), path]);
}

fn jail_on(guard: &Guard, directory: &Path) -> (Created, PathBuf) {
    let created = guard.store().create(&spec(guard, &directory.join("base"), &[])).unwrap();
    let root = created.root().as_path().to_owned();
    (created, root)
}

/// Removes a jail and its base completely.
fn removed(created: Created, directory: &Path) {
    tear_down(created);
    assert!(!directory.join("base").exists(), "the base was not removed");
}

/// Directories nested deeper than the removal holds file descriptors, as the jail's uid.
fn nest(below: &Path, levels: usize) -> PathBuf {
    let deepest = (0..levels).fold(below.to_owned(), |path, level| path.join(format!("d{level}")));
    as_jail("mkdir", &[&"-p", &deepest]);
    as_jail("touch", &[&deepest.join("file")]);
    deepest
}

#[test]
fn read_only_subvolumes_are_removed_with_the_jail() {
    const TEST: &str = "read_only_subvolumes_are_removed_with_the_jail";
    if !is_alone(TEST) {
        return;
    }
    privileged!(guard, {
        if !can_make("btrfs", TEST, "mkfs.btrfs") {
            return;
        }
        let directory = mounted(&guard, "btrfs", &[]);
        let (created, root) = jail_on(&guard, &directory);
        let create = |path: &Path| as_jail("btrfs", &[&"subvolume", &"create", &path]);
        let lock = |path: &Path| as_jail("btrfs", &[&"property", &"set", &"-ts", &path, &"ro", &"true"]);
        // Alone, nested in each other and in deep directories, and with the stub that a snapshot has of a nested one.
        create(&root.join("alone"));
        create(&root.join("outer"));
        let deep = nest(&root.join("outer"), 40);
        create(&deep.join("inner"));
        nest(&deep.join("inner"), 40);
        as_jail("btrfs", &[&"subvolume", &"snapshot", &"-r", &root.join("outer"), &root.join("snapshot")]);
        let mut within = root.join("chain");
        let mut chain = Vec::new();
        for _ in 0..50 {
            create(&within);
            as_jail("touch", &[&within.join("file")]);
            chain.push(within.clone());
            within = within.join("s");
        }
        for path in chain.iter().rev().chain([&deep.join("inner"), &root.join("outer"), &root.join("alone")])
        {
            lock(path);
        }
        assert!(
            fs::remove_dir_all(&root).is_err(),
            "the kernel does not remove a file of a read-only subvolume"
        );
        removed(created, &directory);
        run("umount", &[&directory]);
    });
}

#[test]
fn a_placement_in_a_read_only_subvolume_is_explained() {
    const TEST: &str = "a_placement_in_a_read_only_subvolume_is_explained";
    if !is_alone(TEST) {
        return;
    }
    privileged!(guard, {
        if !can_make("btrfs", TEST, "mkfs.btrfs") {
            return;
        }
        let directory = mounted(&guard, "btrfs", &[]);
        let image = guard.file("image", "content");
        let (mut created, root) = jail_on(&guard, &directory);
        as_jail("btrfs", &[&"subvolume", &"create", &root.join("sub")]);
        as_jail("mkdir", &[&root.join("sub/below")]);
        created.place(Placement::new(&image).named("sub/below/placed")).unwrap();
        as_jail("btrfs", &[&"property", &"set", &"-ts", &root.join("sub"), &"ro", &"true"]);
        for source in [image.as_path(), "/dev/null".as_ref()] {
            let error =
                created.place(Placement::new(source).named("sub/below/more")).unwrap_err().to_string();
            let line = format!(
                "'/sub/below/more' cannot be placed: '{}' is in a read-only btrfs subvolume, which the VMM may have \
                 created; run 'btrfs property set -ts {} ro false'",
                root.join("sub/below").display(),
                root.join("sub").display()
            );
            assert_eq!(error, line);
        }
        created.unplace(&at("sub/below/placed")).unwrap();
        assert!(!root.join("sub/below/placed").exists());
        removed(created, &directory);
        run("umount", &[&directory]);
    });
}

#[test]
fn immutable_and_append_only_files_are_removed() {
    if !is_alone("immutable_and_append_only_files_are_removed") {
        return;
    }
    privileged!(guard, {
        let outside = guard.directory().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "precious").unwrap();
        for flag in ["+i", "+a"] {
            let image = guard.file("image", "content");
            let mut created = create(&guard, &[]);
            let root = created.root().as_path().to_owned();
            created.place(Placement::new(&image).named("placed")).unwrap();
            let deep = nest(&root, 40);
            fs::create_dir(root.join("directory")).unwrap();
            fs::write(root.join("directory/file"), "").unwrap();
            std::os::unix::fs::symlink(outside.join("precious"), root.join("directory/link")).unwrap();
            for path in ["directory/file", "directory", "placed", "run", ""] {
                chattr(flag, &root.join(path));
            }
            chattr(flag, &deep.join("file"));
            chattr(flag, &deep);
            chattr(flag, root.parent().unwrap());
            chattr(flag, &outside.join("precious"));
            if flag == "+i" {
                let error = created.place(Placement::new(&image).named("run/more")).unwrap_err().to_string();
                let run = root.join("run");
                let run = run.display();
                let line =
                    format!("'/run/more' cannot be placed: '{run}' is immutable; run 'chattr -i {run}'");
                assert_eq!(error, line);
            }
            created.unplace(&at("placed")).unwrap();
            assert!(!root.join("placed").exists());
            removed(created, guard.directory());
            // A file outside keeps its attribute.
            assert!(fs::remove_file(outside.join("precious")).is_err());
            chattr(&flag.replace('+', "-"), &outside.join("precious"));
        }
    });
}

#[test]
fn an_immutable_hard_link_is_left_and_explained() {
    if !is_alone("an_immutable_hard_link_is_left_and_explained") {
        return;
    }
    privileged!(guard, {
        let image = guard.file("image", "content");
        chown(&image, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
        let mut created = create(&guard, &[]);
        created.place(Placement::new(&image).named("placed").how(How::Link)).unwrap();
        let root = created.root().as_path().to_owned();
        chattr("+i", &image);
        let error = created.unplace(&at("placed")).unwrap_err().to_string();
        let placed = root.join("placed");
        let reason = format!(
            "{}: it is immutable and a hard link of a file elsewhere; run 'chattr -i {0}'",
            placed.display()
        );
        assert_eq!(error, format!("'/placed' is still in the jail: {reason}"));
        // An immutable file cannot be linked, so it is copied.
        let error =
            created.place(Placement::new(&image).named("more").how(How::Link)).unwrap_err().to_string();
        let line = format!(
            "'{}' is immutable, and no hard link to it can be created; copy it instead",
            image.display()
        );
        assert_eq!(error, line);
        assert_eq!(created.place(Placement::new(&image).named("more")).unwrap().how, How::Copy);
        let report = created.teardown().unwrap();
        assert_eq!(report.left.first().map(|left| left.reason.clone()), Some(reason));
        assert_eq!(fs::metadata(&image).unwrap().nlink(), 2, "the host's file is as it was");
        chattr("-i", &image);
        assert!(guard.store().collect(false).unwrap().is_clean());
        assert!(!guard.base().exists());
    });
}

#[test]
fn project_quotas_hinder_neither_placement_nor_removal() {
    const TEST: &str = "project_quotas_hinder_neither_placement_nor_removal";
    if !is_alone(TEST) {
        return;
    }
    privileged!(guard, {
        if !can_make("xfs", TEST, "mkfs.xfs") {
            return;
        }
        let directory = mounted(&guard, "xfs", &["-m", "reflink=0"]);
        let (mut created, root) = jail_on(&guard, &directory);
        // Deep directories that cannot be moved to the root any more: it has another project, and bequeaths it.
        nest(&root, 60);
        as_jail("chattr", &[&"-p", &"7", &root]);
        as_jail("chattr", &[&"+P", &root]);
        let image = directory.join("image");
        fs::write(&image, "content").unwrap();
        chown(&image, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
        fs::create_dir(directory.join("tree")).unwrap();
        let error =
            created.place(Placement::new(&image).named("link").how(How::Link)).unwrap_err().to_string();
        let line = format!(
            "'{}' cannot be a hard link there: the directory in the jail has another project quota, or is in another \
             btrfs subvolume; copy it instead",
            image.display()
        );
        assert_eq!(error, line);
        created.place(Placement::new(&image).named("copy").how(How::Copy)).unwrap();
        assert_eq!(created.place(Placement::new(&image).named("auto")).unwrap().how, How::Copy);
        created.place(Placement::new(directory.join("tree")).named("tree")).unwrap();
        created.place(Placement::new("/dev/null").named("null")).unwrap();
        created.place(Placement::new(&image).named("bound").how(How::Bind)).unwrap();
        removed(created, &directory);
        run("umount", &[&directory]);
    });
}

#[test]
fn whiteouts_leases_and_full_attributes_are_removed() {
    if !is_alone("whiteouts_leases_and_full_attributes_are_removed") {
        return;
    }
    privileged!(guard, {
        let mut created = create(&guard, &[]);
        let root = created.root().as_path().to_owned();
        // Every user may make the character device 0:0 (since Linux 5.8).
        for name in ["whiteout", "run/placed", "run/null"] {
            as_jail("mknod", &[&root.join(name), &"c", &"0", &"0"]);
        }
        assert!(fs::symlink_metadata(root.join("whiteout")).unwrap().file_type().is_char_device());
        let image = guard.file("image", "content");
        created.place(Placement::new(&image).named("run/placed")).unwrap();
        assert_eq!(fs::read_to_string(root.join("run/placed")).unwrap(), "content");
        created.place(Placement::new("/dev/null").named("run/null")).unwrap();
        // As many attributes as the filesystem takes.
        let full = root.join("full");
        fs::write(&full, "").unwrap();
        let set = |number: usize| {
            let (name, value) = (format!("user.a{number}"), vec![b'x'; 900]);
            rustix::fs::setxattr(&full, name, &value, rustix::fs::XattrFlags::empty())
        };
        let attributes = (0..10_000).take_while(|number| set(*number).is_ok()).count();
        assert!(attributes > 0, "no attribute could be set");
        // A lease on a file: an open of it would wait for its holder.
        let leased = root.join("leased");
        fs::write(&leased, "").unwrap();
        let holder = "import fcntl,os,sys\n\
            file=os.open(sys.argv[1],os.O_RDONLY)\n\
            fcntl.fcntl(file,fcntl.F_SETLEASE,fcntl.F_WRLCK)\n\
            print('held',flush=True)\n\
            sys.stdin.read()";
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-c", holder]).arg(&leased);
        python.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut python = python.spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(python.stdout.take().unwrap()), &mut line)
            .unwrap();
        assert_eq!(line, "held\n");
        created.place(Placement::new(&image).named("leased")).unwrap();
        removed(created, guard.directory());
        drop(python.stdin.take());
        python.wait().unwrap();
    });
}

/// Encrypted directories whose key was removed: their names can be removed, and not moved.
#[test]
fn encrypted_directories_without_a_key_are_removed() {
    const TEST: &str = "encrypted_directories_without_a_key_are_removed";
    if !is_alone(TEST) {
        return;
    }
    privileged!(guard, {
        if !can_make("ext4", TEST, "mkfs.ext4") {
            return;
        }
        let directory = mounted(&guard, "ext4", &["-O", "encrypt"]);
        let (created, root) = jail_on(&guard, &directory);
        as_jail("mkdir", &[&root.join("vault")]);
        let program = "import fcntl,os,sys,struct\n\
            key=bytearray(struct.pack('II32xII32x64s',2,0,64,0,os.urandom(64)))\n\
            base=os.open(os.path.dirname(sys.argv[1]),os.O_RDONLY)\n\
            vault=os.open(sys.argv[1],os.O_RDONLY)\n\
            fcntl.ioctl(base,0xc0506617,key)\n\
            policy=bytearray(struct.pack('BBBB4x16s',2,1,4,0,bytes(key[8:24])))\n\
            fcntl.ioctl(vault,0x800c6613,policy)\n\
            here=vault\n\
            for i in range(200):\n\
            \x20os.mkdir('d',dir_fd=here)\n\
            \x20os.close(os.open('file',os.O_CREAT|os.O_WRONLY,dir_fd=here))\n\
            \x20here=os.open('d',os.O_RDONLY,dir_fd=here)\n\
            os.sync()\n\
            remove=bytearray(struct.pack('II32xI20x',2,0,0))\n\
            remove[8:24]=key[8:24]\n\
            os.closerange(base+1,1024)\n\
            fcntl.ioctl(base,0xc0406618,remove)\n";
        let python = Path::new("/usr/bin/python3");
        if !testkit::has(python.exists(), TEST, "/usr/bin/python3") {
            return;
        }
        as_jail("/usr/bin/python3", &[&"-c", &program, &root.join("vault")]);
        assert!(!root.join("vault/d").exists(), "the key was removed");
        removed(created, &directory);
        run("umount", &[&directory]);
    });
}

#[test]
fn a_device_on_a_nodev_base_is_refused() {
    const TEST: &str = "a_device_on_a_nodev_base_is_refused";
    if !is_alone(TEST) {
        return;
    }
    privileged!(guard, {
        let directory = guard.directory().join("nodev");
        fs::create_dir(&directory).unwrap();
        run(
            "mount",
            &["-t", "tmpfs", "-o", "nodev", "none"]
                .map(Path::new)
                .into_iter()
                .chain([&*directory])
                .collect::<Vec<_>>(),
        );
        let (mut created, root) = jail_on(&guard, &directory);
        let error = created.place(Placement::new("/dev/null")).unwrap_err().to_string();
        let line = format!(
            "'/dev/null' cannot be opened in the jail, because '{}' is mounted nodev; use a base on another filesystem",
            root.display()
        );
        assert_eq!(error, line);
        removed(created, &directory);
        run("umount", &[&directory]);
    });
}

/// A source that became a named pipe after the plan: its open would wait for a writer.
#[test]
fn a_source_replaced_by_a_named_pipe_does_not_block() {
    const TEST: &str = "a_source_replaced_by_a_named_pipe_does_not_block";
    if !is_alone(TEST) {
        return;
    }
    privileged!(guard, {
        use stockade::spec::HostPath;
        use stockade::steps::{PlacedFile, Step, StepContext};
        let (created, root) = jail_on(&guard, guard.directory());
        let source = guard.file("source", "content");
        let step = Step::from(PlacedFile::copy(HostPath::existing(&source).unwrap(), at("copy"), OWNER));
        fs::remove_file(&source).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &source, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
        let receipt = created.receipt();
        let ctx = StepContext::new(stockade::Layout::new(&receipt.spec), Some(receipt.nonce.clone()));
        let error = step.apply(&ctx).unwrap_err().to_string();
        assert_eq!(error, format!("'{}' was replaced since it was placed; place it again", source.display()));
        assert!(!root.join("copy").exists());
        removed(created, guard.directory());
    });
}
