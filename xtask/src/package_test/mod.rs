//! Tests the Debian package: in a separate Debian, where it is installed, tried and purged, and in a virtual machine,
//! where systemd runs its units.
//!
//! `debootstrap` creates a base system once, from the mirror of this host's apt. Each test mounts a file system in
//! memory over it, in its own mount namespace. The kernel removes that file system when the test ends, even after a
//! crash.

mod live;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::command::{Done, cache, command, output, run, run_named};
use crate::dist::{self, Dist};
use crate::setup;

/// Builds and tests the package.
pub(crate) fn test() -> Done {
    setup::setup()?;
    // In parallel: one waits for the network, the other for the processors.
    let (base, dist) = thread::scope(|both| {
        let base = both.spawn(base_system);
        let dist = packed_twice();
        (base.join().unwrap_or_else(|_| Err("debootstrap: panicked".to_owned())), dist)
    });
    let (base, dist) = (base?, dist?);
    let unpacked = unpacked(&dist)?;
    check_units(&unpacked)?;
    check_state_directory(&unpacked)?;
    fs::remove_dir_all(&unpacked).map_err(|e| format!("remove {}: {e}", unpacked.display()))?;
    // Under the tests' lock: other tests would report the jails of this one as leaks, and conversely.
    let lock = std::env::temp_dir().join("stockade-tests.lock");
    let mount_point = cache()?.join("debian.test");
    fs::create_dir_all(&mount_point).map_err(|e| format!("create {}: {e}", mount_point.display()))?;
    let mut test = Command::new("flock");
    test.arg(lock).args(["unshare", "--mount", "--propagation", "private", "--"]);
    test.args(["sh", "-euc", include_str!("outside.sh"), "outside"]).args([
        &base,
        &mount_point,
        &dist.package,
    ]);
    run_named("the package in a separate Debian", test.args(["-c", include_str!("inside.sh")]))?;
    live::test(&base, &dist.package)
}

/// Packs twice, and compares the results.
fn packed_twice() -> Done<Dist> {
    let directory = cache()?.join("dist");
    let again = cache()?.join("dist-again");
    let first = dist::pack(&directory)?;
    let second = dist::pack(&again)?;
    run(command("diff", &["--recursive", "--brief"]).args([&first.directory, &second.directory]))?;
    for directory in [second.directory, second.tree] {
        fs::remove_dir_all(&directory).map_err(|e| format!("remove {}: {e}", directory.display()))?;
    }
    Ok(first)
}

/// Unpacks the package.
fn unpacked(dist: &Dist) -> Done<PathBuf> {
    let root = cache()?.join("unpacked");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(&root).map_err(|e| format!("create {}: {e}", root.display()))?;
    run(command("dpkg-deb", &["--extract"]).args([&dist.package, &root]))?;
    Ok(root)
}

/// The flag that sets the root directory of systemd's programs.
fn as_root(root: &Path) -> OsString {
    let mut flag = OsString::from("--root=");
    flag.push(root);
    flag
}

/// Checks the owner and mode of the state directory that systemd-tmpfiles creates.
fn check_state_directory(root: &Path) -> Done {
    run(command("systemd-tmpfiles", &["--create"]).arg(as_root(root)).arg("stockade.conf"))?;
    let state = root.join("var/lib/stockade");
    let metadata = fs::metadata(&state).map_err(|e| format!("inspect {}: {e}", state.display()))?;
    let found = format!("uid {}, mode {:04o}", metadata.uid(), metadata.mode() & 0o7777);
    if found != "uid 0, mode 0700" {
        return Err(format!("systemd-tmpfiles creates the state directory with {found}"));
    }
    Ok(())
}

/// Checks the units with systemd-analyze.
fn check_units(root: &Path) -> Done {
    let units = output(
        command("find", &["-printf", "%f\n", "-type", "f"]).current_dir(root.join("usr/lib/systemd/system")),
    )?;
    // A template unit is checked as an instance.
    let units: Vec<String> = units
        .lines()
        .filter(|name| name.starts_with("stockade"))
        .map(|name| name.replace("@.", "@vm-1."))
        .collect();
    let verify = ["--recursive-errors=no", "--man=no", "verify"];
    run(command("systemd-analyze", &[]).arg(as_root(root)).args(verify).args(units))
}

/// The base system, from the cache or from Debian.
fn base_system() -> Done<PathBuf> {
    let base = cache()?.join("debian-systemd");
    if base.is_dir() {
        return Ok(base);
    }
    let (mirror, suite) = mirror()?;
    let scratch = cache()?.join("debian-systemd.new");
    let _ = fs::remove_dir_all(&scratch);
    // A minimal Debian with man, bash completion and systemd.
    let arguments = ["--variant=minbase", "--include=man-db,bash-completion,systemd-sysv", &suite];
    run(command("debootstrap", &arguments).arg(&scratch).arg(mirror))?;
    // Renamed last, so that an interrupted run leaves no incomplete system under this name.
    fs::rename(&scratch, &base).map_err(|e| format!("rename {}: {e}", scratch.display()))?;
    Ok(base)
}

/// The mirror and the release of this host's apt.
fn mirror() -> Done<(String, String)> {
    let arguments =
        ["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"];
    let targets = output(&mut command("apt-get", &arguments))?;
    main_source(&targets)
        .ok_or("apt has no source of a Debian release's main: see sources.list(5)".to_owned())
}

/// Finds the release itself among lines of address, release and component. The names of its updates have suffixes.
fn main_source(targets: &str) -> Option<(String, String)> {
    targets.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [mirror, suite, "main"] if !suite.contains(['-', '/']) => Some((mirror.to_owned(), suite.to_owned())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn main_source_is_the_release_and_not_its_updates() {
        let targets = "http://a.example/debian-security/ bookworm-security main\n\
                       http://b.example/extra/ bookworm contrib\n\
                       http://c.example/debian/ bookworm main\n";
        let found = super::main_source(targets);
        assert_eq!(found, Some(("http://c.example/debian/".to_owned(), "bookworm".to_owned())));
        assert_eq!(super::main_source("http://d.example/ ./ \n"), None);
    }
}
