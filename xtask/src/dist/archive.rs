//! The archive: everything in one directory, to be unpacked into `/usr/local` or anywhere.

use std::path::Path;

use super::release::Release;
use crate::command::{Done, command, run};

/// Packs the tree. Names are sorted; times, owners and modes are the same for everyone.
pub(crate) fn pack(tree: &Path, directory: &Path, release: &Release) -> Done {
    let archive = directory.join(format!("{}.tar", release.name()));
    let time = format!("--mtime=@{}", release.time);
    let below = format!("--transform=s,^\\.,{},", release.name());
    let words = ["--create", "--format=gnu", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"];
    run(command("tar", &words)
        .args([&time, &below, "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(tree)
        .arg("."))?;
    run(command("gzip", &["-9", "--no-name", "--force"]).arg(&archive))
}
