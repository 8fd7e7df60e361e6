//! The guide: every command on its pages is run, and prints the documented output.
//!
//! The commands run in a mount namespace in which `/srv`, `/run`, `/var/lib` and `/usr/local/bin` are empty, so that
//! they can use a reader's names. `TRYCMD=overwrite` writes their output into the pages.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use stockade::snapshot::Snapshot;
use testkit::{privileged, program, remove_cgroup};

/// Set in the process that has its own mount namespace.
const ALONE: &str = "STOCKADE_GUIDE_ALONE";
/// Directories that are empty at the start of each page.
const OWN: [&str; 4] = ["/srv", "/run", "/var/lib", "/usr/local/bin"];
/// The search path for the programs of the pages.
const PATH: &str = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SHOWN: [&str; 10] =
    ["stockade", "qemu.sh", "cp", "ls", "mkdir", "mount", "rm", "rmdir", "setpriv", "umount"];
/// Parent cgroups outlive their jails on purpose.
const PARENTS: [&str; 2] = ["firecracker", "qemu-system-x86_64"];

#[test]
fn every_command_of_the_guide_prints_its_documented_output() {
    let needed = [Path::new("/dev/kvm"), Path::new("/usr/bin/qemu-system-x86_64"), &kernel()];
    let there = needed.iter().all(|path| path.exists());
    let test = "every_command_of_the_guide_prints_its_documented_output";
    if !testkit::has(there, test, "/dev/kvm, QEMU and a kernel: cargo xtask test") {
        return;
    }
    if std::env::var_os(ALONE).is_some() {
        furnish();
        privileged!(guard, {
            let wrong: Vec<PathBuf> = pages().into_iter().filter(|page| !is_right(page)).collect();
            assert!(wrong.is_empty(), "pages that say something else than is printed: {wrong:#?}");
        });
    } else if rustix::process::geteuid().is_root() {
        let again = Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .args(std::env::args_os())
            .arg("--nocapture")
            .env(ALONE, "1")
            .status();
        assert!(again.unwrap().success(), "the guide is wrong, as told above");
    } else {
        // It prints that the test is skipped.
        privileged!(guard, {});
    }
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

/// `cargo xtask test` fetches it.
fn kernel() -> PathBuf {
    workspace().join("target/xtask/vmlinuz")
}

fn pages() -> Vec<PathBuf> {
    let files = fs::read_dir(workspace().join("docs/guide/src")).unwrap();
    let mut pages: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    assert!(pages.len() > 6, "{pages:?}");
    pages
}

/// Mounts the empty directories, and adds the programs and images that the guide names.
fn furnish() {
    // Like on a host. It disappears with this namespace.
    mount(&["--make-rshared", "/"]);
    for directory in OWN {
        mount(&["-t", "tmpfs", "-o", "mode=755", "guide", directory]);
    }
    let programs = Path::new("/usr/local/bin");
    fs::copy(program("stand-in"), programs.join("firecracker")).unwrap();
    fs::copy(program("stockade"), programs.join("stockade")).unwrap();
    fs::copy(workspace().join("examples/qemu.sh"), programs.join("qemu.sh")).unwrap();
    let images = Path::new("/srv/images");
    fs::create_dir(images).unwrap();
    fs::copy(kernel(), images.join("vmlinuz")).unwrap();
    fs::write(images.join("vmlinux"), "no kernel, but placed as one").unwrap();
    fs::write(images.join("vm.json"), "{}").unwrap();
    let script = images.join("start.sh");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::File::create(images.join("rootfs.ext4")).unwrap().set_len(64 << 20).unwrap();
    // The working directory does not appear in the output.
    fs::create_dir("/srv/here").unwrap();
    std::env::set_current_dir("/srv/here").unwrap();
}

fn mount(arguments: &[&str]) {
    assert!(Command::new("mount").args(arguments).status().unwrap().success(), "mount {arguments:?}");
}

/// Runs a page. Afterwards the host has to be unchanged.
fn is_right(page: &Path) -> bool {
    let places = OWN.map(Path::new);
    write_files(page);
    let before = Snapshot::take(&places).unwrap();
    let cases = trycmd::TestCases::new();
    cases.case(page).timeout(Duration::from_secs(30)).env("PATH", PATH);
    for name in SHOWN {
        let mut places = PATH.split(':').map(|directory| Path::new(directory).join(name));
        let path = places.find(|path| path.exists()).unwrap_or_else(|| panic!("there is no {name}"));
        cases.register_bin(name, path);
    }
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cases.run()));
    // The template mount namespace outlives jails on purpose.
    testkit::run("stockade", &["host-setup", "--remove"]);
    let after = Snapshot::take(&places).unwrap();
    clear();
    let changed = before.added(&after).chain(before.removed(&after));
    let left: Vec<_> = changed.filter(|what| is_trace(what)).collect();
    if !left.is_empty() {
        testkit::tell(&format!("{} leaves or loses {left:#?}", page.display()));
    }
    ran.is_ok() && left.is_empty()
}

/// Writes the page's blocks that begin with the path of a file.
fn write_files(page: &Path) {
    let text = fs::read_to_string(page).unwrap();
    for block in text.split("\n```toml\n# /").skip(1) {
        let (path, rest) = block.split_once('\n').unwrap();
        let (content, _) = rest.split_once("```").unwrap();
        let path = Path::new("/").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("#\n{content}")).unwrap();
    }
}

/// Whether a change is a trace of a page. The host's own cgroups change, and the directory of network namespaces stays.
fn is_trace(what: &str) -> bool {
    let is_jails = PARENTS.iter().any(|parent| what.contains(&format!("/{parent}/")));
    (is_jails || !what.starts_with("cgroup ")) && !what.contains("/run/netns")
}

/// Removes the leftovers of a failed page, and the parent cgroups.
fn clear() {
    testkit::run("stockade", &["rm", "--all", "--force"]);
    PARENTS.into_iter().for_each(remove_cgroup);
}
