//! Filesystems in images, mounted in a mount namespace of the test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::Guard;

/// Runs a test again in its own mount namespace. Its mounts and loop devices disappear with it, also after a failure.
/// Returns whether this is that run.
pub(crate) fn is_alone(test: &str) -> bool {
    const ALONE: &str = "STOCKADE_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() || !rustix::process::geteuid().is_root() {
        return true;
    }
    let again = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ALONE, "1")
        .status();
    assert!(again.unwrap().success(), "{test} failed in its own mount namespace");
    false
}

/// Whether this host can create filesystems of a kind; a test that cannot is reported as skipped.
pub(crate) fn can_make(kind: &str, test: &str, needs: &str) -> bool {
    let has = Command::new(format!("mkfs.{kind}")).arg("-V").output().is_ok();
    testkit::has(has, test, needs)
}

pub(crate) fn run(program: &str, arguments: &[&Path]) {
    let status = Command::new(program).args(arguments).stdout(std::process::Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "{program} {arguments:?}");
}

/// A new filesystem, created with these options and mounted in the test's directory.
pub(crate) fn mounted(guard: &Guard, kind: &str, options: &[&str]) -> PathBuf {
    let (image, at) = (guard.directory().join(format!("{kind}.img")), guard.directory().join(kind));
    fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
    let options = ["-q"].iter().chain(options).map(Path::new);
    run(&format!("mkfs.{kind}"), &options.chain([image.as_path()]).collect::<Vec<_>>());
    fs::create_dir(&at).unwrap();
    run("mount", &[Path::new("-o"), Path::new("loop"), &image, &at]);
    at
}
