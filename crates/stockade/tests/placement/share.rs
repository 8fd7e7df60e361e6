//! Files, sockets and named pipes of the host that get the jail's owner, and hard links to those that have it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode};
use stockade::snapshot::Snapshot;
use stockade::spec::Owner;
use stockade::{How, Placement, Streams};
use testkit::{Guard, privileged};

use crate::common::*;

fn pipe(guard: &Guard, name: &str) -> PathBuf {
    let path = guard.directory().join(name);
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    path
}

fn owner(path: &Path) -> (u32, u32) {
    let facts = fs::symlink_metadata(path).unwrap();
    (facts.uid(), facts.gid())
}

fn inode(path: &Path) -> (u64, u64) {
    let facts = fs::symlink_metadata(path).unwrap();
    (facts.dev(), facts.ino())
}

fn share(path: &Path) -> Placement {
    Placement::new(path).how(How::Share)
}

#[test]
fn a_shared_log_is_read_while_the_vmm_writes_it() {
    privileged!(guard, {
        let log = guard.file("vm.log", "");
        fs::set_permissions(&log, fs::Permissions::from_mode(0o600)).unwrap();
        let mut created = create(&guard, &["write=/logs/vm.log=started", "sleep"]);
        let placed = created.place(share(&log).named("logs/vm.log")).unwrap();
        assert_eq!(placed.how, How::Share);
        let inside = created.root().join("logs/vm.log");
        assert_eq!(inode(inside.as_path()), inode(&log));
        assert_eq!(
            (owner(&log), fs::metadata(&log).unwrap().mode() & 0o777),
            ((OWNER.uid, OWNER.gid), 0o600)
        );
        let mut reader = fs::File::open(&log).unwrap();
        let running = created.launch(Streams::default()).unwrap();
        let (mut text, deadline) = (String::new(), Instant::now() + Duration::from_mins(1));
        while text.is_empty() && Instant::now() < deadline {
            reader.read_to_string(&mut text).unwrap();
        }
        assert_eq!(text, "started");
        assert!(running.teardown().unwrap().is_clean());
        assert!(log.exists() && owner(&log) == (OWNER.uid, OWNER.gid), "the host's file stays");
    });
}

#[test]
fn sockets_and_named_pipes_are_shared() {
    privileged!(guard, {
        let (pipe, socket) = (pipe(&guard, "pipe"), guard.directory().join("socket"));
        let listener = UnixListener::bind(&socket).unwrap();
        let mut created = create(&guard, &["sleep"]);
        for path in [&pipe, &socket] {
            assert_eq!(created.place(share(path)).unwrap().how, How::Share);
            assert_eq!(owner(path), (OWNER.uid, OWNER.gid));
        }
        let root = created.root();
        UnixStream::connect(root.join("socket").as_path()).unwrap();
        listener.accept().unwrap();
        let mut reader = fs::File::options()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(&pipe)
            .unwrap();
        let mut writer = fs::File::options().write(true).open(root.join("pipe").as_path()).unwrap();
        writer.write_all(b"line").unwrap();
        let mut line = [0; 4];
        reader.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"line");
        tear_down(created);
        assert!(pipe.exists() && socket.exists());
    });
}

#[test]
fn a_pipe_of_the_owner_is_linked_and_another_is_bound() {
    privileged!(guard, {
        let (own, other) = (pipe(&guard, "own"), pipe(&guard, "other"));
        std::os::unix::fs::chown(&own, Some(OWNER.uid), Some(OWNER.gid)).unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o666)).unwrap();
        let before = Snapshot::take(&[guard.directory()]).unwrap();
        let mut created = create(&guard, &["sleep"]);
        assert_eq!(created.place(Placement::new(&own)).unwrap().how, How::Link);
        assert_eq!(created.place(Placement::new(&own).named("again").how(How::Link)).unwrap().how, How::Link);
        assert_eq!(created.place(Placement::new(&other)).unwrap().how, How::Bind);
        let error = created.place(Placement::new(&other).named("x").how(How::Link)).unwrap_err();
        assert!(error.to_string().contains("a hard link cannot change its owner"), "{error}");
        assert!(fs::metadata(created.root().join("own").as_path()).unwrap().file_type().is_fifo());
        tear_down(created);
        assert_eq!(Snapshot::take(&[guard.directory()]).unwrap(), before, "nothing of the host is changed");
    });
}

#[test]
fn a_file_that_others_use_is_not_shared() {
    privileged!(guard, {
        let (file, other) = (guard.file("file", "text"), guard.directory().join("other"));
        fs::hard_link(&file, &other).unwrap();
        let mut created = create(&guard, &[]);
        let line = format!(
            "'{}' has other hard links, which would belong to 12345:12346 too; share a file of its own, or copy it",
            file.display()
        );
        assert_eq!(created.place(share(&file)).unwrap_err().to_string(), line);
        assert_eq!(owner(&file), (0, 0));
        fs::remove_file(&other).unwrap();
        for bits in [0o4755, 0o2755] {
            fs::set_permissions(&file, fs::Permissions::from_mode(bits)).unwrap();
            let error = created.place(share(&file)).unwrap_err().to_string();
            assert!(error.contains("cannot be a hard link in the jail, which would keep its"), "{error}");
            assert_eq!((owner(&file), fs::metadata(&file).unwrap().mode() & 0o7777), ((0, 0), bits));
        }
        tear_down(created);
    });
}

#[test]
fn two_jails_of_one_owner_share_a_file_and_others_do_not() {
    privileged!(guard, {
        let file = guard.file("file", "");
        let mut first = create(&guard, &[]);
        first.place(share(&file)).unwrap();
        // The same path again replaces the hard link by itself.
        first.place(share(&file)).unwrap();
        first.place(share(&file).named("again")).unwrap();
        let error = first.place(share(&file).named("x").owner(Owner { uid: 7, gid: 7 })).unwrap_err();
        assert!(error.to_string().contains("has other hard links"), "{error}");
        assert_eq!(owner(&file), (OWNER.uid, OWNER.gid));
        tear_down(first);
        assert_eq!(fs::metadata(&file).unwrap().nlink(), 1);
    });
}

#[test]
fn a_link_of_a_jail_gives_nothing_away() {
    privileged!(guard, {
        let secret = guard.file("secret", "the host's");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let mut created = create(&guard, &[]);
        let root = created.root();
        let link = |name: &str, target: &Path, uid: u32| {
            let link = root.join(name);
            std::os::unix::fs::symlink(target, link.as_path()).unwrap();
            std::os::unix::fs::lchown(link.as_path(), Some(uid), Some(uid)).unwrap();
            link
        };
        let planted = link("planted", &secret, OWNER.uid);
        let directory = link("directory", guard.directory(), OWNER.uid);
        // Of root, but it leads through one of the jail.
        let through = guard.directory().join("through");
        std::os::unix::fs::symlink(directory.as_path(), &through).unwrap();
        let of_another = link("another", &secret, 77);
        for (source, method, link) in [
            (planted.as_path().to_owned(), How::Share, planted.as_path()),
            (planted.as_path().to_owned(), How::Copy, planted.as_path()),
            (planted.as_path().to_owned(), How::Auto, planted.as_path()),
            (through.join("secret"), How::Share, directory.as_path()),
            (through.join("secret"), How::Copy, directory.as_path()),
            (of_another.as_path().to_owned(), How::Share, of_another.as_path()),
        ] {
            let error =
                created.place(Placement::new(&source).named("x").how(method)).unwrap_err().to_string();
            let line = format!(
                "'{}' leads through the symbolic link '{}', which is another user's and not followed; use the path of its \
                 target",
                source.display(),
                link.display()
            );
            assert_eq!(error, line, "{method}");
        }
        assert_eq!(owner(&secret), (0, 0));
        assert!(!root.join("x").as_path().exists());
        // A symbolic link of root is followed.
        let own = guard.directory().join("own");
        std::os::unix::fs::symlink(&secret, &own).unwrap();
        created.place(share(&own).named("shared")).unwrap();
        assert_eq!(owner(&secret), (OWNER.uid, OWNER.gid));
        tear_down(created);
    });
}
