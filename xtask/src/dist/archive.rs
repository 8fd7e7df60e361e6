//! The archive: one directory, for unpacking into `/usr/local` or elsewhere.

use std::path::Path;

use super::release::Release;
use crate::command::{Done, command, run};

/// Packs the tree reproducibly: names are sorted; times, owners and modes are fixed.
pub(crate) fn pack(tree: &Path, directory: &Path, release: &Release) -> Done {
    let archive = directory.join(format!("{}.tar", release.name()));
    let time = format!("--mtime=@{}", release.time);
    let below = format!("--transform=s,^\\.,{},", release.name());
    let arguments = ["--create", "--format=gnu", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"];
    run(command("tar", &arguments)
        .args([&time, &below, "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(tree)
        .arg("."))?;
    run(command("gzip", &["-9", "--no-name", "--force"]).arg(&archive))
}
