//! A named network namespace that several jails use is removed with the last of them.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use testkit::{Guard, privileged, program, said, stockade};

fn flags(guard: &Guard, id: &str, netns: &str) -> Vec<String> {
    let (base, probe) = (guard.base().display().to_string(), program("stockade-probe").display().to_string());
    let flags = ["create", "--id", id, "--exec-file", &probe, "--chroot-base-dir", &base, "--netns", netns];
    flags.map(str::to_owned).to_vec()
}

fn create(guard: &Guard, name: &str, netns: &str) -> String {
    let id = guard.named(name);
    let flags = flags(guard, &id, netns);
    said(guard, &flags.iter().map(String::as_str).collect::<Vec<_>>());
    id
}

/// The network namespace of a started VMM.
fn start(guard: &Guard, id: &str) -> PathBuf {
    let pid = said(guard, &["start", id, "--", "sleep"]);
    fs::read_link(format!("/proc/{}/ns/net", pid.trim())).unwrap()
}

#[test]
fn a_shared_namespace_goes_with_the_last_jail() {
    privileged!(guard, {
        let net = guard.named("net");
        let at = Path::new("/run/netns").join(&net);
        for by_path in [false, true] {
            let maker = create(&guard, "maker", &net);
            let argument = if by_path { at.display().to_string() } else { net.clone() };
            let others = ["b", "c"].map(|name| create(&guard, name, &argument));
            let namespace = start(&guard, &maker);
            assert_eq!(start(&guard, &others[0]), namespace);
            let rm = stockade(&guard, &["rm", "--force", &maker]);
            let kept = format!(
                "stockade: kept: network namespace {net}: used by jail '{}' and 1 more, and removed with the last of them\n",
                others[0]
            );
            assert_eq!((rm.code, rm.stdout, rm.stderr), (0, format!("{maker}\n"), kept));
            // One that starts only now finds it, and one that joins only now.
            assert_eq!(start(&guard, &others[1]), namespace);
            let late = create(&guard, "late", &argument);
            assert_eq!(start(&guard, &late), namespace);
            for id in [&others[0], &late, &others[1]] {
                assert!(at.exists(), "{id} still uses it");
                assert_eq!(said(&guard, &["rm", "--force", id]), format!("{id}\n"));
            }
            assert!(!at.exists() && !guard.state().exists());
        }
    });
}

#[test]
fn a_namespace_is_kept_across_the_same_id() {
    privileged!(guard, {
        let net = guard.named("net");
        let (maker, other) = (create(&guard, "maker", &net), create(&guard, "other", &net));
        let namespace = start(&guard, &other);
        stockade(&guard, &["rm", "--force", &maker]);
        assert_eq!(create(&guard, "maker", &net), maker);
        assert_eq!(start(&guard, &maker), namespace);
        said(&guard, &["rm", "--force", &other]);
        said(&guard, &["rm", "--force", &maker]);
        assert!(!Path::new("/run/netns").join(&net).exists());
    });
}

#[test]
fn what_is_not_a_namespace_is_refused_at_create() {
    privileged!(guard, {
        let net = guard.named("stale");
        let at = Path::new("/run/netns").join(&net);
        fs::create_dir_all("/run/netns").unwrap();
        for kind in ["file", "FIFO", "directory", "socket"] {
            match kind {
                "file" => fs::write(&at, "").unwrap(),
                "FIFO" => mknodat(CWD, &at, FileType::Fifo, Mode::RUSR, 0).unwrap(),
                "directory" => fs::create_dir(&at).unwrap(),
                _ => drop(std::os::unix::net::UnixListener::bind(&at).unwrap()),
            }
            let id = guard.named("vm");
            let flags = flags(&guard, &id, &net);
            let output = stockade(&guard, &flags.iter().map(String::as_str).collect::<Vec<_>>());
            if kind == "directory" {
                fs::remove_dir(&at).unwrap();
            } else {
                fs::remove_file(&at).unwrap();
            }
            let line = format!(
                "stockade: --netns: '{}' is not a network namespace; remove it, or name another\n",
                at.display()
            );
            assert_eq!((output.code, output.stderr), (1, line), "{kind}");
            assert!(!guard.state().exists() && !guard.base().exists(), "{kind}");
        }
    });
}
