//! The Debian package, which `dpkg-deb` builds from the same tree as the archive.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::release::Release;
use super::tree::{DOCUMENTS, MANUAL, ZSH, filled};
use super::{files_below, recreate, write};
use crate::command::{Done, command, output, root, run};

/// The maintainer scripts.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Packs the tree.
pub(crate) fn pack(tree: &Path, directory: &Path, release: &Release) -> Done<PathBuf> {
    let stage = directory.with_extension("debian");
    recreate(&stage)?;
    let usr = stage.join("usr");
    output(command("cp", &["--archive"]).args([tree, &usr]))?;
    arrange_for_debian(&usr, release)?;
    // For the jail files of systemd's units.
    let jails = stage.join("etc/stockade/jails");
    fs::create_dir_all(&jails).map_err(|e| format!("create {}: {e}", jails.display()))?;
    control(&stage, release)?;
    output(command("chmod", &["--recursive", "u=rwX,go=rX"]).arg(&stage))?;
    let package = directory.join(format!("stockade_{}_{}.deb", release.version, release.architecture()));
    let mut pack = command("dpkg-deb", &["--root-owner-group", "--build"]);
    pack.args([&stage, &package]);
    // The number of threads changes the bytes of the package.
    pack.env("SOURCE_DATE_EPOCH", release.time.to_string()).env("DPKG_DEB_THREADS_MAX", "1");
    run(&mut pack)?;
    fs::remove_dir_all(&stage).map_err(|e| format!("remove {}: {e}", stage.display()))?;
    Ok(package)
}

/// Moves and compresses files as Debian requires.
fn arrange_for_debian(usr: &Path, release: &Release) -> Done {
    let (site, vendor) = (usr.join(ZSH), usr.join("share/zsh/vendor-completions"));
    fs::rename(&site, &vendor).map_err(|e| format!("move {}: {e}", site.display()))?;
    let documents = usr.join(DOCUMENTS);
    let date = release.date("--rfc-email")?;
    let changes = filled("debian/changelog", &[("@VERSION@", release.version), ("@DATE@", &date)])?;
    write(&documents.join("changelog"), changes.as_bytes())?;
    write(&documents.join("copyright"), filled("debian/copyright", &[])?.as_bytes())?;
    write(
        &usr.join("share/lintian/overrides/stockade"),
        filled("debian/lintian-overrides", &[])?.as_bytes(),
    )?;
    // Every Debian has the license's text.
    let license = documents.join("LICENSE");
    fs::remove_file(&license).map_err(|e| format!("remove {}: {e}", license.display()))?;
    let manual = usr.join(MANUAL);
    let pages = files_below(&manual)?.into_iter().map(|page| manual.join(page));
    let long = ["changelog", "CHANGELOG.md", "THIRD-PARTY"].map(|name| documents.join(name));
    output(command("gzip", &["-9", "--no-name"]).args(pages).args(long)).map(drop)
}

/// Writes the control files.
fn control(stage: &Path, release: &Release) -> Done {
    let files = files_below(stage)?;
    let sums = output(command("md5sum", &["--"]).args(&files).current_dir(stage))?;
    let sizes =
        files.iter().map(|file| fs::metadata(stage.join(file)).map(|facts| facts.len().div_ceil(1024)));
    let size = sizes.sum::<std::io::Result<u64>>().map_err(|e| format!("measure the package: {e}"))?;
    let values = [
        ("@VERSION@", release.version),
        ("@ARCHITECTURE@", release.architecture()),
        ("@SIZE@", &size.to_string()),
    ];
    let control = stage.join("DEBIAN");
    write(&control.join("control"), filled("debian/control", &values)?.as_bytes())?;
    write(&control.join("md5sums"), sums.as_bytes())?;
    for name in SCRIPTS {
        let script = control.join(name);
        fs::copy(root().join("packaging/debian").join(name), &script)
            .and_then(|_| fs::set_permissions(&script, fs::Permissions::from_mode(0o755)))
            .map_err(|e| format!("copy {name}: {e}"))?;
    }
    Ok(())
}
