//! The command brings along what a dynamically linked VMM needs.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use testkit::{Guard, privileged, run, run_with};

/// A program that needs a loader, and ends with 7.
fn vmm(guard: &Guard) -> PathBuf {
    let source = guard.file("vmm.c", "int main(void) { return 7; }\n");
    let path = guard.directory().join("vmm");
    let made = run_with(Command::new("gcc").arg("-o").arg(&path).arg(source));
    assert_eq!(made.code, 0, "gcc, which the tests need: {made:?}");
    path
}

fn words(guard: &Guard, command: &str, vmm: &Path) -> Vec<String> {
    let flags = [
        ("--id", guard.named("jail")),
        ("--exec-file", vmm.display().to_string()),
        ("--chroot-base-dir", guard.base().display().to_string()),
        ("--state-dir", guard.state().display().to_string()),
    ];
    let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
    std::iter::once(command.to_owned()).chain(flags).collect()
}

#[test]
fn run_places_the_closure_unless_it_is_told_not_to() {
    privileged!(guard, {
        let mut words = words(&guard, "run", &vmm(&guard));
        let output = run("stockade", &words);
        assert_eq!((output.code, output.stderr.as_str()), (7, ""));
        words.push("--no-closure".into());
        let output = run("stockade", &words);
        let said = "stockade: failed to execute in the jail: /vmm: No such file or directory (os error 2); \
                    the file is in the jail, so its interpreter is not: \
                    link it statically, or place its closure too\n";
        assert_eq!((output.code, output.stderr.as_str()), (125, said));
    });
}

#[test]
fn a_created_jail_has_its_closure_and_takes_directories() {
    privileged!(guard, {
        let vmm = vmm(&guard);
        let created = run("stockade", &words(&guard, "create", &vmm));
        assert_eq!(created.code, 0, "{created:?}");
        let directory = guard.directory().join("roms");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("bios"), "bios").unwrap();
        let state = guard.state().display().to_string();
        let id = guard.named("jail");
        let place = |name: &str| {
            let what = format!("{}={name}", directory.display());
            run("stockade", &["place", "--state-dir", &state, &id, &what])
        };
        let placed = place("usr/share/roms");
        assert_eq!((placed.code, placed.stdout.as_str()), (0, "/usr/share/roms\n"), "{placed:?}");
        let again = place("usr/share/roms");
        let said = format!(
            "stockade: {}: /usr/share/roms is in the jail already, and a directory is placed only where nothing is\n",
            directory.display()
        );
        assert_eq!((again.code, again.stderr), (1, said));
        let root = guard.base().join("vmm").join(&id).join("root");
        assert_eq!(std::fs::read_to_string(root.join("usr/share/roms/bios")).unwrap(), "bios");
        let started = run("stockade", &["start", "--state-dir", &state, &id]);
        assert_eq!(started.code, 0, "{started:?}");
        let ended = run("stockade", &["wait", "--state-dir", &state, &id]);
        assert_eq!((ended.code, ended.stdout.as_str()), (0, "7\n"), "{ended:?}");
        let removed = run("stockade", &["rm", "--state-dir", &state, &id]);
        assert_eq!(removed.code, 0, "{removed:?}");
    });
}

/// What a bound program sees of itself and its libraries: whether it can change them, by its own words.
const LOOKS: &str = r#"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
int main(int count, char **names) {
    for (int i = 1; i < count; i++) {
        struct stat facts;
        stat(names[i], &facts);
        printf("%lu %s\n", (unsigned long)facts.st_ino, chmod(names[i], 0777) ? strerror(errno) : "changed");
    }
}
"#;

#[test]
fn a_bound_program_and_its_libraries_are_the_hosts_own_to_read_only() {
    privileged!(guard, {
        let source = guard.file("looks.c", LOOKS);
        let vmm = guard.directory().join("vmm");
        let made = run_with(Command::new("gcc").arg("-o").arg(&vmm).arg(source));
        assert_eq!(made.code, 0, "gcc, which the tests need: {made:?}");
        let mut words = words(&guard, "run", &vmm);
        let planned = run("stockade", &[&["plan".into(), "--json".into()], &words[1..]].concat());
        let copied: Value = serde_json::from_str(&planned.stdout).unwrap();
        let copied = copied.as_array().unwrap().iter().map(|row| &row["step"]);
        let libc = copied.filter_map(|step| step["path"].as_str()).find(|path| path.ends_with("/libc.so.6"));
        let libc = libc.unwrap().to_owned();
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
        let hosts = inode(&std::fs::canonicalize(&libc).unwrap());
        // No permission stops it at its own file.
        std::os::unix::fs::chown(&vmm, Some(1234), Some(1234)).unwrap();
        words.extend(["--bind-exec", "--", "/vmm", &libc].map(String::from));
        let output = run("stockade", &words);
        let refused = "Read-only file system";
        let said = format!("{} {refused}\n{hosts} {refused}\n", inode(&vmm));
        assert_eq!((output.code, output.stdout, output.stderr), (0, said, String::new()));
        // Root could mount it anew.
        words.splice(words.len() - 4..words.len() - 3, ["--bind-exec", "--uid", "0"].map(String::from));
        let output = run("stockade", &words);
        let said = "stockade: --bind-exec: 0:1234 cannot own what is read-only: uid 0 is the jail's own, and could \
                    make it writable\n";
        assert_eq!((output.code, output.stderr.as_str()), (125, said));
        assert!(vmm.exists());
    });
}

#[test]
fn what_the_vmms_user_may_not_execute_is_not_bound() {
    privileged!(guard, {
        use std::os::unix::fs::PermissionsExt;
        let vmm = vmm(&guard);
        std::fs::set_permissions(&vmm, std::fs::Permissions::from_mode(0o744)).unwrap();
        let mut words = words(&guard, "run", &vmm);
        assert_eq!(run("stockade", &words).code, 7, "a copy is the user's own");
        words.push("--bind-exec".into());
        let output = run("stockade", &words);
        let said = format!(
            "stockade: --exec-file: {} may not be executed by 1234:1234, and bound it stays as it is: have it \
             copied, or chmod it\n",
            vmm.display()
        );
        assert_eq!((output.code, output.stderr), (125, said));
        words.extend(["--gid".into(), "0".into()]);
        std::fs::set_permissions(&vmm, std::fs::Permissions::from_mode(0o710)).unwrap();
        // Its libraries and the way to it are for everyone.
        let output = run("stockade", &words);
        assert_eq!((output.code, output.stderr.as_str()), (7, ""));
    });
}

#[test]
fn plan_shows_the_closure_and_makes_nothing() {
    privileged!(guard, {
        let vmm = vmm(&guard);
        let mut words = words(&guard, "plan", &vmm);
        words.push("--json".into());
        let placed = |words: &[String]| {
            let output = run("stockade", words);
            assert_eq!(output.code, 0, "{output:?}");
            let steps: Value = serde_json::from_str(&output.stdout).unwrap();
            let steps = steps.as_array().unwrap().iter().map(|row| &row["step"]);
            let files = steps.filter(|step| step["kind"] == "placed-file");
            files.map(|step| step["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let files = placed(&words);
        assert!(files.iter().any(|path| path.ends_with("/libc.so.6")), "{files:?}");
        words.push("--no-closure".into());
        assert_eq!(placed(&words), ["/vmm"]);
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}
