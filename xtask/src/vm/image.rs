//! The initramfs of the virtual machine: busybox, the programs under test, and the list of tests.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::command::{Done, cache, cargo, command, find_installed, run};

/// The init script of every image. It moves the system to a tmpfs, from which `pivot_root` works.
pub(crate) const INIT: &str = include_str!("init.sh");

/// A test binary and its tests.
#[derive(Default)]
pub(crate) struct Suite {
    /// Its test target.
    pub(crate) target: String,
    /// The path of the built binary.
    pub(crate) binary: PathBuf,
    /// The tests, as `TARGET::TEST`.
    pub(crate) tests: Vec<String>,
}

/// Builds the workspace's programs and the suites' binaries, and lists each binary's tests.
pub(crate) fn build_suites(suites: &[(&str, &str)]) -> Done<Vec<Suite>> {
    run(&mut cargo(&["build", "--workspace"]))?;
    // For the whole workspace, as in other tasks: other features would need another build.
    let mut arguments = vec!["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"];
    arguments.extend(suites.iter().flat_map(|(_, target)| ["--test", target]));
    let output =
        cargo(&arguments).stderr(Stdio::inherit()).output().map_err(|e| format!("run cargo: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo {}: {}", arguments.join(" "), output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let built: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    suites.iter().map(|(package, target)| suite(&built, package, target)).collect()
}

fn suite(built: &[Value], package: &str, target: &str) -> Done<Suite> {
    let manifest = Path::new(package).join("Cargo.toml");
    let artifact = built.iter().find(|artifact| {
        let of_package =
            artifact["manifest_path"].as_str().is_some_and(|path| Path::new(path).ends_with(&manifest));
        of_package && artifact["target"]["name"] == target && artifact["target"]["kind"][0] == "test"
    });
    let binary = artifact.and_then(|artifact| artifact["executable"].as_str());
    let binary = PathBuf::from(binary.ok_or(format!("cargo built no test {target} of {package}"))?);
    let list = command(&binary.to_string_lossy(), &["--list", "--format=terse"]).output();
    let list = list.map_err(|e| format!("list the tests of {}: {e}", binary.display()))?.stdout;
    let list = String::from_utf8_lossy(&list);
    let tests: Vec<String> = list
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(|test| format!("{target}::{test}"))
        .collect();
    if tests.is_empty() {
        return Err(format!("{} has no tests", binary.display()));
    }
    Ok(Suite { target: target.to_owned(), binary, tests })
}

/// Creates the initramfs of the suites. Tests find the programs in the directory above their own, as in cargo's target
/// directory.
///
/// # Arguments
/// `driver`: the kernel's driver of loop devices.
pub(crate) fn make(suites: &[Suite], programs: &[&str], driver: &Path) -> Done<PathBuf> {
    let mut image = Tree::with_a_system()?;
    image.copy(driver, "system/loop.ko")?;
    let mut list = String::new();
    for Suite { target, binary, tests } in suites {
        image.program(binary, &format!("system/target/deps/{target}"))?;
        for program in programs {
            let built = binary.parent().and_then(Path::parent).map(|built| built.join(program));
            image.program(&built.unwrap_or_default(), &format!("system/target/{program}"))?;
        }
        list.extend(tests.iter().map(|test| test.replacen("::", " ", 1) + "\n"));
    }
    image.file("system/tests", &list)?;
    image.packed()
}

/// Creates an initramfs that runs the first of these programs with these arguments.
pub(crate) fn make_for(programs: &[PathBuf], arguments: &[&str]) -> Done<PathBuf> {
    let mut image = Tree::with_a_system()?;
    let names: Vec<_> = programs.iter().filter_map(|program| program.file_name()?.to_str()).collect();
    for (program, name) in programs.iter().zip(&names) {
        image.program(program, &format!("system/target/{name}"))?;
    }
    let arguments: Vec<_> = arguments.iter().map(|argument| format!("'{argument}'")).collect();
    let first = names.first().ok_or("no program")?;
    image.script(
        "system/target/deps/run",
        &format!("#!/bin/sh\nexec /target/{first} {}\n", arguments.join(" ")),
    )?;
    image.file("system/tests", "run it\n")?;
    image.packed()
}

/// The image's files before they are packed.
struct Tree {
    root: PathBuf,
    files: Vec<String>,
}

impl Tree {
    /// Creates the common part of all images: busybox and the init scripts.
    fn with_a_system() -> Done<Self> {
        let root = cache()?.join("initramfs");
        let _ = fs::remove_dir_all(&root);
        let mut image = Self { root, files: Vec::new() };
        let busybox = find_installed("busybox").ok_or("busybox is not installed")?;
        image.script("init", INIT)?;
        image.program(&busybox, "bin/busybox")?;
        image.script("system/init", include_str!("system.sh"))?;
        Ok(image)
    }

    /// Packs the image into one file, and removes its tree.
    fn packed(self) -> Done<PathBuf> {
        let archive = cache()?.join("initramfs.cpio");
        self.pack(&archive)?;
        let _ = fs::remove_dir_all(&self.root);
        Ok(archive)
    }

    fn script(&mut self, name: &str, text: &str) -> Done {
        self.file(name, text)?;
        let path = self.root.join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(|e| format!("set the mode of {}: {e}", path.display()))
    }

    fn file(&mut self, name: &str, text: &str) -> Done {
        let path = self.prepare(name)?;
        fs::write(&path, text).map_err(|e| format!("write {}: {e}", path.display()))
    }

    fn copy(&mut self, from: &Path, name: &str) -> Done {
        let path = self.prepare(name)?;
        fs::copy(from, &path).map(drop).map_err(|e| format!("copy {}: {e}", from.display()))
    }

    /// Adds a program without debug information, because the emulated processor is slow.
    fn program(&mut self, from: &Path, name: &str) -> Done {
        if self.files.iter().any(|file| file == name) {
            return Ok(());
        }
        let path = self.prepare(name)?;
        run(command("strip", &["-o"]).args([&path, from]))
    }

    /// Prepares the path of a new file: creates its directories, and lists them before it, as cpio requires.
    fn prepare(&mut self, name: &str) -> Done<PathBuf> {
        let path = self.root.join(name);
        let directory = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(directory).map_err(|e| format!("create {}: {e}", directory.display()))?;
        let mut above: Vec<_> = Path::new(name).ancestors().map(|part| part.display().to_string()).collect();
        above.retain(|part| !part.is_empty() && !self.files.contains(part));
        self.files.extend(above.into_iter().rev());
        Ok(path)
    }

    fn pack(&self, archive: &Path) -> Done {
        let failed = |e| format!("pack {}: {e}", archive.display());
        let to = File::create(archive).map_err(failed)?;
        let mut cpio = command("cpio", &["--create", "--quiet", "--format=newc", "--owner=0:0"]);
        let mut cpio =
            cpio.current_dir(&self.root).stdin(Stdio::piped()).stdout(to).spawn().map_err(failed)?;
        let list = self.files.join("\n") + "\n";
        if let Some(mut stdin) = cpio.stdin.take() {
            stdin.write_all(list.as_bytes()).map_err(failed)?;
        }
        let status = cpio.wait().map_err(failed)?;
        if status.success() { Ok(()) } else { Err(format!("pack {}: cpio: {status}", archive.display())) }
    }
}
