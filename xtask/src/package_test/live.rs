//! Tests the package in a virtual machine where systemd runs its units.

use std::path::Path;

use crate::command::{Done, cache, command, find_installed, run_named};
use crate::vm::{fetch_kernel, machine};

/// Boots the base system, which installs the package and runs its units.
///
/// # Arguments
/// `base`: a Debian with systemd.
pub(super) fn test(base: &Path, package: &Path) -> Done {
    let (kernel, image) = (fetch_kernel()?, image(base, package)?);
    let mut complete = false;
    let ran = machine::run(&kernel, &image, "systemd.log_target=console systemd.getty_auto=no", |line| {
        complete |= line == "@done";
        if !line.starts_with('@') {
            println!("{line}");
        }
    });
    if ran.is_err() || !complete {
        println!("\n---- console ----\n{}", machine::end_of_console()?);
    }
    ran?;
    if complete { Ok(()) } else { Err("the package failed under systemd".to_owned()) }
}

fn image(base: &Path, package: &Path) -> Done<std::path::PathBuf> {
    let (tree, archive) = (cache()?.join("systemd"), cache()?.join("systemd.cpio"));
    let busybox = find_installed("busybox").ok_or("busybox is not installed")?;
    let live = cache()?.join("live.sh");
    std::fs::write(&live, include_str!("live.sh")).map_err(|e| format!("write {}: {e}", live.display()))?;
    let named = cache()?.join("stockade.deb");
    std::fs::copy(package, &named).map_err(|e| format!("copy {}: {e}", package.display()))?;
    let mut pack = command("sh", &["-euc", include_str!("image.sh"), "image"]);
    pack.args([base, &tree, &busybox]).arg(crate::vm::INIT).arg(&archive);
    pack.args([&named, &live]);
    run_named("an image of a Debian with systemd", &mut pack).map(|()| archive)
}
