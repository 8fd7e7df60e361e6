//! Checks that the same sources give the same bytes when they are built elsewhere.

use std::process::{Command, Stdio};

use super::{SUMS, pack, read, recreate};
use crate::command::{Done, cache, command, root, run};

/// Packs this tree and a copy in another directory, and compares the checksums.
pub(crate) fn twice() -> Done {
    let here = pack(&root().join("target/packages"))?;
    // Not below this tree, whose cargo settings would apply there too.
    let elsewhere = std::env::temp_dir().join("stockade-elsewhere");
    recreate(&elsewhere)?;
    let mut files = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .current_dir(root())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("run git: {e}"))?;
    let list = files.stdout.take().ok_or("git has no output")?;
    let archive = cache()?.join("elsewhere.tar");
    run(command("tar", &["--null", "--files-from=-", "--create", "--file"]).arg(&archive).stdin(list))?;
    files.wait().map_err(|e| format!("run git: {e}"))?;
    run(command("tar", &["--extract", "--file"]).arg(&archive).arg("--directory").arg(&elsewhere))?;
    let time = super::Release::of_this_tree()?.time.to_string();
    // Cargo finds a tree's settings by its working directory.
    let mut again = Command::new("cargo");
    again.args(["xtask", "dist"]).current_dir(&elsewhere).env("SOURCE_DATE_EPOCH", time);
    run(again.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO"))?;
    let (first, second) =
        (read(&here.directory.join(SUMS))?, read(&elsewhere.join("target/packages").join(SUMS))?);
    if first != second {
        return Err(format!("a build elsewhere gave other bytes:\n{first}---\n{second}"));
    }
    std::fs::remove_dir_all(&elsewhere).map_err(|e| format!("remove {}: {e}", elsewhere.display()))?;
    std::fs::remove_file(&archive).map_err(|e| format!("remove {}: {e}", archive.display()))?;
    eprintln!("the same bytes twice:\n{first}");
    Ok(())
}
