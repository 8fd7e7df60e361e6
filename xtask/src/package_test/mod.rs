//! The Debian package on a Debian of its own: installed, tried, and purged without a trace; and on one that systemd has
//! booted, which runs the units.
//!
//! A base system is created once by `debootstrap` from the mirror that this host's apt uses, and kept. Each test lays
//! a file system in memory over it, in a mount namespace of its own: when the test ends, however it ends, nothing
//! of it is there any more.

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

/// Builds the package, and tries it.
pub(crate) fn test() -> Done {
    setup::setup()?;
    // One waits for the network, the other for the processors.
    let (base, dist) = thread::scope(|both| {
        let base = both.spawn(base_system);
        let dist = packed_twice();
        (base.join().unwrap_or_else(|_| Err("debootstrap: panicked".to_owned())), dist)
    });
    let (base, dist) = (base?, dist?);
    let unpacked = unpacked(&dist)?;
    units_are_sound(&unpacked)?;
    state_directory_is_roots_alone(&unpacked)?;
    fs::remove_dir_all(&unpacked).map_err(|e| format!("remove {}: {e}", unpacked.display()))?;
    // It makes jails, which other tests would take for leaks; and they would see its own.
    let lock = std::env::temp_dir().join("stockade-tests.lock");
    let place = cache()?.join("debian.test");
    fs::create_dir_all(&place).map_err(|e| format!("make {}: {e}", place.display()))?;
    let mut test = Command::new("flock");
    test.arg(lock).args(["unshare", "--mount", "--propagation", "private", "--"]);
    test.args(["sh", "-euc", include_str!("outside.sh"), "outside"]).args([&base, &place, &dist.package]);
    run_named("the package in a Debian of its own", test.args(["-c", include_str!("inside.sh")]))?;
    live::test(&base, &dist.package)
}

/// The package, after what is packed was found to be the same a second time.
fn packed_twice() -> Done<Dist> {
    let directory = cache()?.join("dist");
    let again = cache()?.join("dist-again");
    let first = dist::pack(&directory)?;
    let second = dist::pack(&again)?;
    run(command("diff", &["--recursive", "--brief"]).args([&first.directory, &second.directory]))?;
    for made in [second.directory, second.tree] {
        fs::remove_dir_all(&made).map_err(|e| format!("remove {}: {e}", made.display()))?;
    }
    Ok(first)
}

/// The files of the package, as they will be found.
fn unpacked(dist: &Dist) -> Done<PathBuf> {
    let root = cache()?.join("unpacked");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(&root).map_err(|e| format!("make {}: {e}", root.display()))?;
    run(command("dpkg-deb", &["--extract"]).args([&dist.package, &root]))?;
    Ok(root)
}

/// The option for the directory that a program of systemd takes for the root.
fn as_root(root: &Path) -> OsString {
    let mut flag = OsString::from("--root=");
    flag.push(root);
    flag
}

/// Has systemd make the directories that are to be there by themselves.
fn state_directory_is_roots_alone(root: &Path) -> Done {
    run(command("systemd-tmpfiles", &["--create"]).arg(as_root(root)).arg("stockade.conf"))?;
    let made = root.join("var/lib/stockade");
    let facts = fs::metadata(&made).map_err(|e| format!("look at {}: {e}", made.display()))?;
    let told = format!("uid {}, mode {:04o}", facts.uid(), facts.mode() & 0o7777);
    if told != "uid 0, mode 0700" {
        return Err(format!("systemd-tmpfiles makes the state directory with {told}"));
    }
    Ok(())
}

/// Has systemd read the units.
fn units_are_sound(root: &Path) -> Done {
    let units = output(
        command("find", &["-printf", "%f\n", "-type", "f"]).current_dir(root.join("usr/lib/systemd/system")),
    )?;
    // A template is read as one of its units.
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
    // Beside the least that a Debian is: who reads manual pages, who completes, and who runs units.
    let words = ["--variant=minbase", "--include=man-db,bash-completion,systemd-sysv", &suite];
    run(command("debootstrap", &words).arg(&scratch).arg(mirror))?;
    // Last, so that an interrupted fetch leaves nothing that looks like a system.
    fs::rename(&scratch, &base).map_err(|e| format!("keep {}: {e}", scratch.display()))?;
    Ok(base)
}

/// The mirror of this host's apt, and the release that it gets there.
fn mirror() -> Done<(String, String)> {
    let words = ["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"];
    let targets = output(&mut command("apt-get", &words))?;
    main_source(&targets)
        .ok_or("apt has no source of a Debian release's main: see sources.list(5)".to_owned())
}

/// The source of a release itself, among lines of address, release and component. Its updates have other names.
fn main_source(targets: &str) -> Option<(String, String)> {
    targets.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [mirror, suite, "main"] if !suite.contains(['-', '/']) => Some((mirror.to_owned(), suite.to_owned())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_mirror_is_that_of_the_release_and_not_of_its_updates() {
        let targets = "http://a.example/debian-security/ bookworm-security main\n\
                       http://b.example/extra/ bookworm contrib\n\
                       http://c.example/debian/ bookworm main\n";
        let found = super::main_source(targets);
        assert_eq!(found, Some(("http://c.example/debian/".to_owned(), "bookworm".to_owned())));
        assert_eq!(super::main_source("http://d.example/ ./ \n"), None);
    }
}
