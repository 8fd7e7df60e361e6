//! Foreign mounts in a jail's directory, and grace periods of VMMs.
#![allow(clippy::unwrap_used, missing_docs)]

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use testkit::{Guard, privileged, program, said, set_mode, stockade};

fn create(guard: &Guard, id: &str, flags: &[&str]) -> String {
    let id = guard.named(id);
    let (base, probe) = (guard.base().display().to_string(), program("stockade-probe").display().to_string());
    let fixed = ["create", "--id", &id, "--exec-file", &probe, "--chroot-base-dir", &base];
    said(guard, &[&fixed[..], flags].concat());
    id
}

fn jail(guard: &Guard, id: &str) -> PathBuf {
    guard.base().join("stockade-probe").join(id)
}

/// A directory of the host with files that must not change.
fn precious(guard: &Guard) -> PathBuf {
    let precious = guard.directory().join("precious");
    std::fs::create_dir_all(precious.join("dev")).unwrap();
    std::fs::write(precious.join("dev/kvm"), "precious").unwrap();
    std::fs::write(precious.join("stockade-probe"), "precious").unwrap();
    set_mode(&precious, 0o755);
    precious
}

fn unharmed(precious: &Path) {
    assert_eq!(std::fs::read_to_string(precious.join("dev/kvm")).unwrap(), "precious");
    assert_eq!(std::fs::read_to_string(precious.join("stockade-probe")).unwrap(), "precious");
    let facts = precious.metadata().unwrap();
    assert_eq!((facts.mode() & 0o777, facts.uid(), facts.nlink()), (0o755, 0, 3));
}

fn bind(from: &Path, to: &Path) {
    rustix::mount::mount_bind(from, to).unwrap();
}

#[test]
fn foreign_mounts_are_unmounted_only_by_force_and_unharmed() {
    privileged!(guard, {
        let precious = precious(&guard);
        let file = guard.file("file", "precious");
        // On a new directory, on the jail's directories and its root, on its own directory, in its ramfs, on a file.
        for point in ["root/deep/own", "root/dev", "root", "", "root/ramfs/own", "root/passwd"] {
            let id = create(&guard, "mounts", &["--ramfs", "1M", "--place", "/etc/passwd"]);
            let at = jail(&guard, &id).join(point);
            let at = if point.is_empty() { jail(&guard, &id) } else { at };
            if point == "root/passwd" {
                bind(&file, &at);
            } else {
                std::fs::create_dir_all(&at).unwrap();
                bind(&precious, &at);
            }
            for again in 0..2 {
                let left = stockade(&guard, &["rm", &id]);
                assert_eq!((left.code, left.stdout.as_str()), (1, ""), "{point} {again}: {left:?}");
                let line = format!("not removed: mount {} (", at.display());
                assert!(left.stderr.contains(&line), "{point}: {left:?}");
                assert!(left.stderr.contains("stockade did not mount it"), "{left:?}");
                unharmed(&precious);
            }
            assert_eq!(stockade(&guard, &["gc"]).code, 1, "it is still there");
            let gone = if point == "root" {
                said(&guard, &["gc", "--force"])
            } else {
                said(&guard, &["rm", "-f", &id])
            };
            assert!(gone.contains(&id), "{gone}");
            unharmed(&precious);
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
            assert!(!guard.base().exists() && !guard.state().exists(), "{point}");
        }
    });
}

#[test]
fn several_foreign_mounts_are_reported_and_all_unmounted() {
    privileged!(guard, {
        let precious = precious(&guard);
        let id = create(&guard, "many", &[]);
        said(&guard, &["start", &id, "--", "sleep"]);
        for point in ["a b", "a b", "c"] {
            let at = jail(&guard, &id).join("root").join(point);
            std::fs::create_dir_all(&at).unwrap();
            bind(&precious, &at);
        }
        said(&guard, &["kill", &id]);
        let left = stockade(&guard, &["rm", &id]);
        assert_eq!(left.stderr.matches("not removed: mount ").count(), 3, "{left:?}");
        assert_eq!(said(&guard, &["rm", "--force", &id]), format!("{id}\n"));
        unharmed(&precious);
    });
}

#[test]
fn stop_gives_all_vmms_one_grace_and_keeps_exit_statuses() {
    privileged!(guard, {
        // Two of them ignore SIGTERM.
        let ids = ["a", "b", "c"].map(|id| create(&guard, id, &[]));
        for (id, arguments) in ids.iter().zip([
            &["sleep"][..],
            &["ignore=15", "clock", "sleep"],
            &["ignore=15", "clock", "sleep"],
        ]) {
            said(&guard, &[&["start", id, "--"], arguments].concat());
            // Its output shows that it ignores the signal now.
            while arguments.len() > 1 && stockade(&guard, &["logs", id]).stdout.is_empty() {
                std::thread::yield_now();
            }
        }
        let [a, b, c] = &ids;
        let all = format!("{a}\n{b}\n{c}\n");
        assert_eq!(said(&guard, &["-q", "stop", "--timeout", "1", a, b, c]), all);
        assert_eq!(said(&guard, &["wait", a, b, c]), "143\n137\n137\n");
        assert_eq!(said(&guard, &["stop", a, b, c]), all, "stopped already");
        let unknown = stockade(&guard, &["stop", "nobody", a]);
        assert_eq!((unknown.code, unknown.stdout), (1, format!("{a}\n")));
        assert_eq!(unknown.stderr, "stockade: no jail 'nobody'; list the jails with `stockade ps`\n");
        assert_eq!(said(&guard, &["rm", a, b, c]), all);
    });
}

#[test]
fn rm_by_force_takes_a_grace_period() {
    privileged!(guard, {
        let ids = ["a", "b"].map(|id| create(&guard, id, &[]));
        for id in &ids {
            said(&guard, &["start", id, "--", "sleep"]);
        }
        let [a, b] = &ids;
        // The longest grace period: this returns only if the VMM exits on SIGTERM.
        let forever = u64::MAX.to_string();
        assert_eq!(said(&guard, &["rm", "--force", "--timeout", &forever, a, b]), format!("{a}\n{b}\n"));
        let needs = stockade(&guard, &["rm", "--timeout", "1", a]);
        assert_eq!(needs.code, 1);
        assert!(needs.stderr.contains("--force") && needs.stderr.lines().count() == 1, "{needs:?}");
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}

#[test]
fn rm_removes_all_that_it_can_and_names_the_others() {
    privileged!(guard, {
        let ids = ["a", "b", "c", "d"].map(|id| create(&guard, id, &[]));
        let [a, b, c, d] = &ids;
        said(&guard, &["start", c, "--", "sleep"]);
        let missing = guard.named("missing");
        // One id is given twice, and its jail is removed once.
        let removed = stockade(&guard, &["rm", a, &missing, b, c, a, d]);
        assert_eq!((removed.code, removed.stdout), (1, format!("{a}\n{b}\n{d}\n")));
        let lines: Vec<&str> = removed.stderr.lines().collect();
        assert!(lines.len() == 2 && lines[0].contains(&missing), "{lines:?}");
        assert!(lines[1].contains(c.as_str()) && lines[1].contains("--force"), "{lines:?}");
        assert_eq!(said(&guard, &["rm", "--force", c]), format!("{c}\n"));
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}
