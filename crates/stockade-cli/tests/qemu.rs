//! QEMU in a jail: the README's example, unchanged.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::Command;

use testkit::{privileged, program, run_with};

#[test]
fn a_kernel_boots_under_qemu_in_a_jail_to_a_clean_power_off() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    // `cargo xtask test` fetches it.
    let kernel = workspace.join("target/xtask/vmlinuz");
    let programs = ["qemu-system-x86_64", "busybox", "cpio"];
    let there = kernel.exists() && programs.iter().all(|name| Path::new("/usr/bin").join(name).exists());
    let needs = format!("{} and {}: cargo xtask test", programs.join(", "), kernel.display());
    if !testkit::has(there, std::any::type_name_of_val(&|| ()), &needs) {
        return;
    }
    privileged!(guard, {
        let started = std::time::Instant::now();
        // A hanging machine is stopped and its jail removed, as with Ctrl-C.
        let output = run_with(
            Command::new("timeout")
                .args(["--kill-after=20", "90"])
                .arg(workspace.join("examples/qemu.sh"))
                .arg(kernel)
                .arg("--chroot-base-dir")
                .arg(guard.base())
                .env("STOCKADE", program("stockade"))
                .env("STOCKADE_STATE_DIR", guard.state())
                .env("JAIL", guard.named("qemu"))
                .env("TMPDIR", guard.directory()),
        );
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output:?}");
        assert!(output.stdout.contains("the guest is up: Linux 6."), "{output:?}");
        assert!(output.stdout.contains("reboot: Power down"), "{output:?}");
        testkit::tell(&format!("from nothing to nothing in {:.1} s", started.elapsed().as_secs_f64()));
        let left: Vec<_> = std::fs::read_dir(guard.directory()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    });
}
