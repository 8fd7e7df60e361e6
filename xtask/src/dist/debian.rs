//! The Debian package, built by `dpkg-deb` from the same tree as the archive.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::release::Release;
use super::tree::{DOCUMENTS, MANUAL, ZSH, filled};
use super::{files_below, make_anew, write};
use crate::command::{Done, command, output, root, run};

/// The scripts that dpkg runs before and after.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Packs the tree.
pub(crate) fn pack(tree: &Path, directory: &Path, release: &Release) -> Done<PathBuf> {
    let stage = directory.with_extension("debian");
    make_anew(&stage)?;
    let usr = stage.join("usr");
    output(command("cp", &["--archive"]).args([tree, &usr]))?;
    as_debian_has_it(&usr, release)?;
    // For the jails that systemd keeps.
    let jails = stage.join("etc/stockade/jails");
    fs::create_dir_all(&jails).map_err(|e| format!("make {}: {e}", jails.display()))?;
    control(&stage, release)?;
    output(command("chmod", &["--recursive", "u=rwX,go=rX"]).arg(&stage))?;
    let package = directory.join(format!("stockade_{}_{}.deb", release.version, release.architecture()));
    let mut pack = command("dpkg-deb", &["--root-owner-group", "--build"]);
    pack.args([&stage, &package]);
    // As many threads as processors would be as many different files.
    pack.env("SOURCE_DATE_EPOCH", release.time.to_string()).env("DPKG_DEB_THREADS_MAX", "1");
    run(&mut pack)?;
    fs::remove_dir_all(&stage).map_err(|e| format!("remove {}: {e}", stage.display()))?;
    Ok(package)
}

/// Moves and compresses what Debian has elsewhere or compressed.
fn as_debian_has_it(usr: &Path, release: &Release) -> Done {
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
    // Every Debian has its text.
    let license = documents.join("LICENSE");
    fs::remove_file(&license).map_err(|e| format!("remove {}: {e}", license.display()))?;
    let manual = usr.join(MANUAL);
    let pages = files_below(&manual)?.into_iter().map(|page| manual.join(page));
    let long = ["changelog", "CHANGELOG.md", "THIRD-PARTY"].map(|name| documents.join(name));
    output(command("gzip", &["-9", "--no-name"]).args(pages).args(long)).map(drop)
}

/// The package's control file.
fn control(stage: &Path, release: &Release) -> Done {
    let files = files_below(stage)?;
    let sums = output(command("md5sum", &["--"]).args(&files).current_dir(stage))?;
    let sizes =
        files.iter().map(|file| fs::metadata(stage.join(file)).map(|facts| facts.len().div_ceil(1024)));
    let size = sizes.sum::<std::io::Result<u64>>().map_err(|e| format!("measure the package: {e}"))?;
    let words = [
        ("@VERSION@", release.version),
        ("@ARCHITECTURE@", release.architecture()),
        ("@SIZE@", &size.to_string()),
    ];
    let about = stage.join("DEBIAN");
    write(&about.join("control"), filled("debian/control", &words)?.as_bytes())?;
    write(&about.join("md5sums"), sums.as_bytes())?;
    for name in SCRIPTS {
        let script = about.join(name);
        fs::copy(root().join("packaging/debian").join(name), &script)
            .and_then(|_| fs::set_permissions(&script, fs::Permissions::from_mode(0o755)))
            .map_err(|e| format!("copy {name}: {e}"))?;
    }
    Ok(())
}
