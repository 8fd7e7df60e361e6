//! The command places the shared libraries of a dynamically linked VMM.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use testkit::{Guard, privileged, run, run_with};

/// A program that needs a dynamic loader and exits with 7.
fn vmm(guard: &Guard) -> PathBuf {
    let source = guard.file("vmm.c", "int main(void) { return 7; }\n");
    let path = guard.directory().join("vmm");
    let made = run_with(Command::new("gcc").arg("-o").arg(&path).arg(source));
    assert_eq!(made.code, 0, "gcc, which the tests need: {made:?}");
    path
}

/// The dynamic loader of this host's C compiler.
fn loader() -> &'static str {
    if cfg!(target_arch = "x86_64") { "/lib64/ld-linux-x86-64.so.2" } else { "/lib/ld-linux-aarch64.so.1" }
}

fn arguments(guard: &Guard, command: &str, vmm: &Path) -> Vec<String> {
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
fn run_places_shared_libraries_except_with_no_closure() {
    privileged!(guard, {
        let mut arguments = arguments(&guard, "run", &vmm(&guard));
        let output = run("stockade", &arguments);
        assert_eq!((output.code, output.stderr.as_str()), (7, ""));
        arguments.push("--no-closure".into());
        let output = run("stockade", &arguments);
        let said = format!(
            "stockade: cannot execute in the jail: /vmm: its dynamic loader '{}' is not in the jail; place it with its \
             shared libraries, or use a static executable, or omit --no-closure\n",
            loader()
        );
        assert_eq!((output.code, output.stderr), (125, said));
    });
}

#[test]
fn a_missing_dynamic_loader_is_named_with_the_ways_out() {
    privileged!(guard, {
        let (source, vmm) =
            (guard.file("vmm.c", "int main(void) { return 7; }\n"), guard.directory().join("vmm"));
        let flags = ["-Wl,--dynamic-linker=/no/such/loader", "-o"];
        assert_eq!(run_with(Command::new("gcc").args(flags).arg(&vmm).arg(source)).code, 0);
        let output = run("stockade", &arguments(&guard, "run", &vmm));
        let said = format!(
            "stockade: --exec-file: '{}' needs the dynamic loader '/no/such/loader', which is not on this host; \
             install it or use a static executable, or --no-closure with --place for each library\n",
            vmm.display()
        );
        assert_eq!((output.code, output.stderr), (125, said));
        assert!(!guard.base().exists());
    });
}

#[test]
fn a_created_jail_has_its_libraries_and_takes_directories() {
    privileged!(guard, {
        let vmm = vmm(&guard);
        let created = run("stockade", &arguments(&guard, "create", &vmm));
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
            "stockade: {}: '/usr/share/roms' exists in the jail, and a directory is never placed over something; use \
             another name\n",
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

/// A program that reports whether it can change itself or its libraries.
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
fn a_bound_program_and_its_libraries_are_read_only() {
    privileged!(guard, {
        let source = guard.file("looks.c", LOOKS);
        let vmm = guard.directory().join("vmm");
        let made = run_with(Command::new("gcc").arg("-o").arg(&vmm).arg(source));
        assert_eq!(made.code, 0, "gcc, which the tests need: {made:?}");
        let mut arguments = arguments(&guard, "run", &vmm);
        let planned = run("stockade", &[&["plan".into(), "--json".into()], &arguments[1..]].concat());
        let copied: Value = serde_json::from_str(&planned.stdout).unwrap();
        let copied = copied.as_array().unwrap().iter().map(|row| &row["step"]);
        let libc = copied.filter_map(|step| step["path"].as_str()).find(|path| path.ends_with("/libc.so.6"));
        let libc = libc.unwrap().to_owned();
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
        let hosts = inode(&std::fs::canonicalize(&libc).unwrap());
        // The file's mode does not stop the program, which owns the file.
        std::os::unix::fs::chown(&vmm, Some(1234), Some(1234)).unwrap();
        arguments.extend(["--bind-exec", "--", "/vmm", &libc].map(String::from));
        let output = run("stockade", &arguments);
        let refused = "Read-only file system";
        let said = format!("{} {refused}\n{hosts} {refused}\n", inode(&vmm));
        assert_eq!((output.code, output.stdout, output.stderr), (0, said, String::new()));
        // Root could remount it writable.
        arguments.splice(
            arguments.len() - 4..arguments.len() - 3,
            ["--bind-exec", "--uid", "0"].map(String::from),
        );
        let output = run("stockade", &arguments);
        let said = "stockade: --bind-exec: 0:1234 cannot own a read-only file: uid 0 is the jail's own and could make \
                    it writable; use another owner\n";
        assert_eq!((output.code, output.stderr.as_str()), (125, said));
        assert!(vmm.exists());
    });
}

#[test]
fn a_file_that_the_vmms_user_cannot_execute_is_not_bound() {
    privileged!(guard, {
        use std::os::unix::fs::PermissionsExt;
        let vmm = vmm(&guard);
        std::fs::set_permissions(&vmm, std::fs::Permissions::from_mode(0o744)).unwrap();
        let mut arguments = arguments(&guard, "run", &vmm);
        assert_eq!(run("stockade", &arguments).code, 7, "a copy is the user's own");
        arguments.push("--bind-exec".into());
        let output = run("stockade", &arguments);
        let said = format!(
            "stockade: --exec-file: 1234:1234 cannot execute '{}', and --bind-exec does not change its mode; make it \
             executable or drop --bind-exec\n",
            vmm.display()
        );
        assert_eq!((output.code, output.stderr), (125, said));
        arguments.extend(["--gid".into(), "0".into()]);
        std::fs::set_permissions(&vmm, std::fs::Permissions::from_mode(0o710)).unwrap();
        // Its libraries and parent directories are accessible to everyone.
        let output = run("stockade", &arguments);
        assert_eq!((output.code, output.stderr.as_str()), (7, ""));
    });
}

#[test]
fn plan_shows_shared_libraries_and_creates_nothing() {
    privileged!(guard, {
        let vmm = vmm(&guard);
        let mut arguments = arguments(&guard, "plan", &vmm);
        arguments.push("--json".into());
        let placed = |arguments: &[String]| {
            let output = run("stockade", arguments);
            assert_eq!(output.code, 0, "{output:?}");
            let steps: Value = serde_json::from_str(&output.stdout).unwrap();
            let steps = steps.as_array().unwrap().iter().map(|row| &row["step"]);
            let files = steps.filter(|step| step["kind"] == "placed-file");
            files.map(|step| step["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let files = placed(&arguments);
        assert!(files.iter().any(|path| path.ends_with("/libc.so.6")), "{files:?}");
        arguments.push("--no-closure".into());
        assert_eq!(placed(&arguments), ["/vmm"]);
        assert!(!guard.base().exists() && !guard.state().exists());
    });
}
