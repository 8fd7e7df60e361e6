//! The machine's initramfs: busybox, the programs under test, and the list of tests.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::command::{Done, cache, cargo, command, find_installed, run};

/// The first program of an image: it moves the system to a root that it can change.
pub(crate) const INIT: &str = include_str!("init.sh");

/// A test binary and its tests.
#[derive(Default)]
pub(crate) struct Suite {
    /// Its test target.
    pub(crate) target: String,
    /// Where it was built.
    pub(crate) binary: PathBuf,
    /// Each test, as `TARGET::TEST`.
    pub(crate) tests: Vec<String>,
}

/// Builds the workspace's programs and the suites' binaries, and asks each binary for its tests.
pub(crate) fn build_suites(suites: &[(&str, &str)]) -> Done<Vec<Suite>> {
    run(&mut cargo(&["build", "--workspace"]))?;
    // For the whole workspace as everywhere else: other features would be other builds.
    let mut words = vec!["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"];
    words.extend(suites.iter().flat_map(|(_, target)| ["--test", target]));
    let output = cargo(&words).stderr(Stdio::inherit()).output().map_err(|e| format!("run cargo: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo {}: {}", words.join(" "), output.status));
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

/// Makes the initramfs. Tests find the programs where cargo puts them: in the directory above their own.
pub(crate) fn make(suites: &[Suite], programs: &[&str]) -> Done<PathBuf> {
    let mut image = Tree::with_a_system()?;
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

/// Creates an image whose only test is to run the first of these programs with these arguments.
pub(crate) fn make_for(programs: &[PathBuf], words: &[&str]) -> Done<PathBuf> {
    let mut image = Tree::with_a_system()?;
    let names: Vec<_> = programs.iter().filter_map(|program| program.file_name()?.to_str()).collect();
    for (program, name) in programs.iter().zip(&names) {
        image.program(program, &format!("system/target/{name}"))?;
    }
    let words: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
    let first = names.first().ok_or("no program")?;
    image.script(
        "system/target/deps/run",
        &format!("#!/bin/sh\nexec /target/{first} {}\n", words.join(" ")),
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
    /// An image with busybox and its first program.
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

    /// The image as one file; what it was made of is removed.
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
            .map_err(|e| format!("make {} executable: {e}", path.display()))
    }

    fn file(&mut self, name: &str, text: &str) -> Done {
        let path = self.place(name)?;
        fs::write(&path, text).map_err(|e| format!("write {}: {e}", path.display()))
    }

    /// Takes a program over, without what only a debugger reads: the guest's processor is slow.
    fn program(&mut self, from: &Path, name: &str) -> Done {
        if self.files.iter().any(|file| file == name) {
            return Ok(());
        }
        let path = self.place(name)?;
        run(command("strip", &["-o"]).args([&path, from]))
    }

    /// The path for a new file. Creates its directories and lists them before it, as cpio requires.
    fn place(&mut self, name: &str) -> Done<PathBuf> {
        let path = self.root.join(name);
        let directory = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(directory).map_err(|e| format!("make {}: {e}", directory.display()))?;
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
