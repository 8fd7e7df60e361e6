//! A jail chooses names and output that act on terminals: no command prints them as they are.
#![allow(clippy::unwrap_used, missing_docs)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use rustix::mount::UnmountFlags;
use testkit::{Guard, Operator, command, privileged, said, stockade};

const BUSYBOX: &str = "/bin/busybox";

/// Names of at most 15 bytes, so that a process can have them too.
const NAMES: [&[u8]; 11] = [
    b"a\x1b]0;title\x07",
    b"b\x1b[6n",
    b"c\rINJECTED",
    b"d\x08\x08\x08INJ",
    "e\u{9b}6n".as_bytes(),
    "f\u{202e}txt.exe".as_bytes(),
    b"g\xff\xfe\x9b6n",
    b"h\nINJECTED",
    "i\u{2028}INJECTED".as_bytes(),
    b"j\x7f\x7f",
    "k\u{2066}\u{feff}".as_bytes(),
];

/// Runs a command, and checks that nothing in its output acts on a terminal. Returns its stdout.
fn shown(guard: &Guard, line: &str) -> String {
    let mut command = command(guard, &line.split(' ').collect::<Vec<_>>());
    let output = command.stdin(Stdio::null()).output().unwrap();
    for stream in [&output.stdout, &output.stderr] {
        let text = std::str::from_utf8(stream).unwrap_or_else(|e| panic!("{line}: {e}: {stream:?}"));
        let acts = |letter: &char| {
            let invisible = "\u{202e}\u{2066}\u{2028}\u{feff}".contains(*letter);
            (letter.is_control() && !"\n\t".contains(*letter)) || invisible
        };
        assert_eq!(text.chars().find(acts), None, "{line}: {text:?}");
        assert!(!text.lines().any(|line| line.trim_start().starts_with("INJECTED")), "{line}: {text:?}");
        assert!(!text.contains("panicked"), "{line}: {text}");
    }
    if line.contains("--json") || line.contains("--sarif") {
        let stdout = String::from_utf8(output.stdout.clone()).unwrap();
        let values = serde_json::Deserializer::from_str(&stdout).into_iter::<serde_json::Value>();
        assert!(values.map(Result::unwrap).count() > 0, "{line}: {}", output.status);
    }
    String::from_utf8(output.stdout).unwrap()
}

/// A jail whose VMM has this name, has printed it, and whose root holds objects of this name.
fn jail(guard: &Guard, name: &OsStr) -> String {
    let (id, base) = (guard.named("hostile"), guard.base().display().to_string());
    let mut target = OsString::from(guard.file("source", "").as_os_str());
    target.push("=");
    target.push(name);
    let fixed = ["create", "--id", &id, "--exec-file", BUSYBOX, "--chroot-base-dir", &base];
    said(guard, &[&fixed[..], &["--place", "/proc=proc:bind"]].concat());
    let placed = command(guard, &["place", &id]).arg(target).output().unwrap();
    // A name that no placement can have.
    assert!(placed.status.success() || name.to_str().is_none(), "{}: {placed:?}", name.display());
    let root = guard.base().join("busybox").join(&id).join("root");
    let run = root.join("run");
    drop(UnixListener::bind(run.join(name)).unwrap());
    let program = root.join([b"set-id-", name.as_bytes()].concat().as_slice().to_owned().os());
    fs::write(&program, "").unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).unwrap();
    chown(run.join(name), Some(1234), Some(1234)).unwrap();
    let script = "printf %s \"$1\" > /proc/self/comm; printf '%s\\n' \"$1\"; kill -STOP $$";
    let mut start = command(guard, &["start", &id, "--", "sh", "-c", script, "sh"]);
    assert!(start.arg(name).stdout(Stdio::null()).status().unwrap().success());
    while stockade(guard, &["logs", &id]).stdout.is_empty() {}
    id
}

trait Os {
    fn os(self) -> OsString;
}

impl Os for Vec<u8> {
    fn os(self) -> OsString {
        std::os::unix::ffi::OsStringExt::from_vec(self)
    }
}

#[test]
fn no_command_prints_a_name_that_acts_on_a_terminal() {
    privileged!(guard, {
        for name in NAMES {
            let name = OsStr::from_bytes(name);
            let id = jail(&guard, name);
            let ps = shown(&guard, "ps");
            assert!(ps.contains(" running "), "{name:?}: a name hides the VMM: {ps}");
            let tree = shown(&guard, &format!("inspect --tree {id}"));
            assert!(tree.contains("VMM"), "{name:?}: a name hides the VMM: {tree}");
            for line in [
                "ps --json",
                "inspect ID",
                "inspect ID --json",
                "-vv inspect ID",
                "audit ID",
                "audit ID --json",
                "audit ID --sarif",
                "audit --probe ID",
                "events --all --timeout 1",
                "events --all --json --timeout 1",
                "top --once",
                "top --json",
                "doctor",
                "doctor --json",
                "gc --dry-run",
                "wait --timeout 0 ID",
                "exec ID -- /not/there",
            ] {
                shown(&guard, &line.replace("ID", &id));
            }
            // A mount that stockade did not make keeps the jail's directory.
            let at = guard
                .base()
                .join("busybox")
                .join(&id)
                .join("root/run")
                .join([b"mount-", name.as_bytes()].concat().os());
            fs::create_dir(&at).unwrap();
            rustix::mount::mount_bind(guard.directory(), &at).unwrap();
            for line in
                ["kill ID", "wait ID", "-vv rm ID", "rm ID", "rm --json ID", "inspect ID", "gc --dry-run"]
            {
                shown(&guard, &line.replace("ID", &id));
            }
            let gc = shown(&guard, "gc");
            assert!(gc.contains("mount-"), "{gc}");
            shown(&guard, "gc --json");
            rustix::mount::unmount(&at, UnmountFlags::DETACH).unwrap();
            shown(&guard, "gc");
            assert!(!guard.state().exists(), "{name:?}");
        }
    });
}

#[test]
fn logs_are_exact_in_a_pipe_and_shown_on_a_terminal() {
    privileged!(guard, {
        for name in NAMES {
            let id = jail(&guard, OsStr::from_bytes(name));
            let logs = command(&guard, &["logs", &id]).output().unwrap();
            assert_eq!(logs.stdout, [name, b"\n"].concat());
            let mut operator = Operator::plain(&guard);
            let text = operator.does(&format!("\"$stockade\" logs {id}"));
            let acts = |letter: &char| letter.is_control() && !"\r\n\t".contains(*letter);
            assert_eq!(text.chars().find(acts), None, "{text:?}");
            assert!(!text.contains(['\u{202e}', '\u{2066}', '\u{2028}']), "{text:?}");
            if name.contains(&b'\x1b') {
                let raw = operator.does(&format!("\"$stockade\" logs --raw {id}"));
                assert!(raw.contains('\x1b') && text.contains("\\u{1b}"), "{raw:?} {text:?}");
            }
            operator.leaves();
            said(&guard, &["rm", "--force", &id]);
        }
    });
}

#[test]
fn the_last_lines_of_a_failed_start_are_escaped() {
    privileged!(guard, {
        for name in NAMES {
            let (id, base) = (guard.named("early"), guard.base().display().to_string());
            let fixed = ["--id", &id, "--exec-file", BUSYBOX, "--chroot-base-dir", &base, "--ready"];
            let mut run: Command =
                command(&guard, &[&["run", "--detach"][..], &fixed, &["--", "sh", "-c"]].concat());
            let run = run.args(["printf '%s\\n' \"$1\"; exit 3", "sh"]).arg(OsStr::from_bytes(name));
            let output = run.stdin(Stdio::null()).output().unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(!text.trim_end_matches('\n').contains(|letter: char| letter.is_control()), "{text:?}");
            assert!(!text.contains(['\u{202e}', '\u{2066}', '\u{2028}']), "{text:?}");
            stockade(&guard, &["rm", "--force", &id]);
        }
    });
}
