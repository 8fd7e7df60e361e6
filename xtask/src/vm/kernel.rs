//! Debian's kernel, downloaded once and never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Done, cache, run};

/// The metapackage of the newest kernel for virtual machines, which is small.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// The driver of loop devices, which gives the machine a block device without a disk.
const DRIVER: &str = "loop.ko";

/// The driver of loop devices, which [`fetch`] has put into the cache.
pub(crate) fn driver() -> Done<PathBuf> {
    Ok(cache()?.join(DRIVER))
}

/// The kernel's image, from the cache or from Debian.
pub(crate) fn fetch() -> Done<PathBuf> {
    let (image, driver) = (cache()?.join("vmlinuz"), cache()?.join(DRIVER));
    if image.is_file() && driver.is_file() {
        return Ok(image);
    }
    if std::env::consts::ARCH != "x86_64" {
        return Err("the machine runs this host's programs, so it needs an x86-64 host".to_owned());
    }
    let scratch = cache()?.join("kernel");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch).map_err(|e| format!("create {}: {e}", scratch.display()))?;
    // The package lists may be missing or outdated.
    let package = download(&scratch).or_else(|_| {
        run(Command::new("apt-get").args(["update", "--quiet"]))?;
        download(&scratch)
    })?;
    let tree = scratch.join("tree");
    run(Command::new("dpkg").arg("-x").args([&package, &tree]))?;
    let drivers = find(&tree.join("lib/modules"), "")?.join("kernel/drivers/block");
    let mut unpacked = find(&drivers, DRIVER)?;
    if unpacked.extension().is_some_and(|kind| kind == "xz") {
        run(Command::new("xz").arg("--decompress").arg(&unpacked))?;
        unpacked.set_extension("");
    }
    // Renamed last, so that an interrupted run leaves nothing incomplete under these names.
    for (from, to) in [(unpacked, &driver), (find(&tree.join("boot"), "vmlinuz-")?, &image)] {
        fs::rename(&from, to).map_err(|e| format!("rename {}: {e}", from.display()))?;
    }
    let _ = fs::remove_dir_all(&scratch);
    Ok(image)
}

/// Downloads the package of the kernel itself.
fn download(to: &Path) -> Done<PathBuf> {
    let depends = Command::new("apt-cache").args(["depends", PACKAGE]).output();
    let depends = depends.map_err(|e| format!("run apt-cache: {e}"))?.stdout;
    let depends = String::from_utf8_lossy(&depends);
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    let package = package.ok_or(format!("apt-cache knows no kernel for {PACKAGE}"))?;
    run(Command::new("apt-get")
        .args(["download", "--quiet", &format!("linux-image-{package}")])
        .current_dir(to))?;
    find(to, "linux-image-")
}

/// Finds the entry of a directory with this beginning of its name.
fn find(directory: &Path, beginning: &str) -> Done<PathBuf> {
    let entries = fs::read_dir(directory).map_err(|e| format!("read {}: {e}", directory.display()))?;
    let mut found =
        entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(beginning));
    let found = found.next().ok_or(format!("{} has no {beginning}*", directory.display()))?;
    Ok(found.path())
}
