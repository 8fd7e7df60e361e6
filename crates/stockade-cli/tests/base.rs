//! The base directory: one that the VMM's user can change, and one without devices.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

use serde_json::Value;
use testkit::{Guard, Output, privileged, program, run_with, set_mode, stockade};

fn jail(guard: &Guard, command: &str, more: &[&str]) -> Output {
    let (base, probe) = (guard.base().display().to_string(), program("stockade-probe").display().to_string());
    let id = guard.named("jail");
    let fixed = [command, "--id", &id, "--exec-file", &probe, "--chroot-base-dir", &base];
    stockade(guard, &fixed.into_iter().chain(more.iter().copied()).collect::<Vec<_>>())
}

fn nothing_of_the_jail(guard: &Guard) {
    assert!(!guard.base().join("stockade-probe").exists());
    assert!(!guard.state().join(guard.named("jail")).exists());
}

#[test]
fn an_unsafe_base_is_refused_unless_it_is_allowed() {
    privileged!(guard, {
        std::fs::create_dir(guard.base()).unwrap();
        set_mode(&guard.base(), 0o777);
        let base = guard.base().display().to_string();
        let line = format!(
            "stockade: --chroot-base-dir: 1234:1234 can write to '{base}', and so exchange jails; run 'chown root: \
             {base}; chmod go-w {base}', or use --allow-unsafe-base\n"
        );
        for (command, code) in [("plan", 1), ("create", 1), ("run", 125)] {
            let output = jail(&guard, command, &["--", "exit=3"]);
            assert_eq!((output.code, output.stdout.as_str(), &output.stderr), (code, "", &line), "{command}");
            nothing_of_the_jail(&guard);
        }
        let allowed = |command: &str| jail(&guard, command, &["--allow-unsafe-base", "--", "exit=3"]);
        assert_eq!((allowed("plan").code, allowed("run").code), (0, 3));
        nothing_of_the_jail(&guard);
        // A key of jail files.
        let file = guard.directory().join("jail.toml");
        let text = |allow: bool| {
            let (id, probe) = (guard.named("jail"), program("stockade-probe"));
            format!(
                "[[jail]]\nid = {id:?}\nexec-file = {probe:?}\nchroot-base-dir = {base:?}\nallow-unsafe-base = {allow}\n\
                 arguments = [\"exit=4\"]\n"
            )
        };
        for (allow, code) in [(true, 4), (false, 125)] {
            std::fs::write(&file, text(allow)).unwrap();
            let output = stockade(&guard, &["run", "--file", &file.display().to_string()]);
            assert_eq!(output.code, code, "{}", output.stderr);
        }
        let output = stockade(&guard, &["doctor", "--json", "--chroot-base-dir", &base]);
        let report: Value = serde_json::from_str(&output.stdout).unwrap();
        let broken = report["findings"]
            .as_array()
            .unwrap()
            .iter()
            .find(|found| found["check"] == "base" && found["grade"] == "broken");
        assert_eq!(broken.unwrap()["fact"], format!("uid 1234 can write to {base}"));
        assert_eq!(output.code, 1);
        nothing_of_the_jail(&guard);
        std::fs::remove_dir(guard.base()).unwrap();
    });
}

#[test]
fn a_nodev_base_is_reported_before_the_start() {
    privileged!(guard, {
        std::fs::create_dir(guard.base()).unwrap();
        let script = "mount -t tmpfs -o nodev none \"$1\" && exec \"$0\" run --id \"$2\" --exec-file \"$3\" \
                      --chroot-base-dir \"$1\" -- exit=3";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(program("stockade")).arg(guard.base());
        command.arg(guard.named("jail")).arg(program("stockade-probe"));
        let output = run_with(command.env("STOCKADE_STATE_DIR", guard.state()));
        let line = format!(
            "stockade: '{}' is mounted nodev, so the VMM cannot open /dev/kvm or another device; use a \
             --chroot-base-dir on another filesystem\n",
            guard.base().display()
        );
        assert_eq!((output.code, output.stderr), (3, line));
        std::fs::remove_dir(guard.base()).unwrap();
    });
}
