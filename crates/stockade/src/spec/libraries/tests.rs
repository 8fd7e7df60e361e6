//! Libraries of small programs, which the tests compile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{Libraries, LibraryError};
use crate::spec::ExecFile;

/// A directory with programs, removed on drop.
struct Bench {
    directory: PathBuf,
}

impl Bench {
    fn new(test: &str) -> Self {
        let name = format!("stockade-libraries-{test}-{}", std::process::id());
        let directory =
            std::env::temp_dir().canonicalize().expect("a directory for temporary files").join(name);
        std::fs::create_dir_all(&directory).expect("create a directory for the test");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes a file, and creates its directory.
    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("it is in the bench")).expect("create its directory");
        std::fs::write(&path, content).expect("write a file");
        path
    }

    /// Compiles a shared library with the file's name as its `DT_SONAME`.
    fn library(&self, file: &str, flags: &[&str]) {
        let name = Path::new(file).file_name().and_then(|name| name.to_str()).expect("it has a name");
        let function = name.split('.').next().expect("a name before the dot");
        let soname = format!("-Wl,-soname,{name}");
        let flags = [&["-shared", "-fPIC", &soname][..], flags].concat();
        self.compile(file, &format!("int {function}(void) {{ return 1; }}\n"), &flags);
    }

    fn program(&self, file: &str, flags: &[&str]) {
        self.compile(file, "int main(void) { return 0; }\n", flags);
    }

    /// Runs the compiler in the bench, so that relative paths of libraries are valid. Unused libraries stay in
    /// `DT_NEEDED`.
    fn compile(&self, file: &str, source: &str, flags: &[&str]) {
        let source = self.file(&format!("{file}.c"), source.as_bytes());
        let mut gcc = Command::new("gcc");
        gcc.current_dir(&self.directory).args(["-o", file]).arg(&source);
        // The linker does not search the libraries of libraries.
        gcc.args(["-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined"]).args(flags);
        let output = gcc.output().expect("run gcc, which the tests need");
        assert!(output.status.success(), "{gcc:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn libraries(&self, file: &str) -> Result<Libraries, LibraryError> {
        Libraries::with_cache(&exec_file(&self.path(file)), &self.path("no.cache"))
    }

    /// The libraries from the bench: their paths in the jail, and their sources in the bench.
    fn placed(&self, file: &str) -> BTreeMap<String, String> {
        let libraries = self.libraries(file).unwrap_or_else(|e| panic!("{file}: {e}"));
        let own = libraries.files.iter().filter_map(|file| {
            let source = file.source.as_path().strip_prefix(&self.directory).ok()?;
            Some((file.path.to_string(), source.display().to_string()))
        });
        own.collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn exec_file(path: &Path) -> ExecFile {
    ExecFile::new(path).expect("the executable exists")
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(path, source)| ((*path).to_owned(), (*source).to_owned())).collect()
}

/// The first built-in directory of this host's dynamic loader, to which other libraries go.
fn built_in() -> &'static str {
    static FIRST: OnceLock<String> = OnceLock::new();
    FIRST.get_or_init(|| {
        let bench = Bench::new("built-in");
        bench.library("liba.so", &[]);
        bench.program("main", &["liba.so", "-Wl,-rpath,$ORIGIN"]);
        let placed = bench.placed("main");
        let path = placed.keys().next().expect("one library");
        path.strip_suffix("/liba.so").expect("under its name").to_owned()
    })
}

#[test]
fn a_static_program_needs_nothing() {
    let bench = Bench::new("static");
    bench.program("static", &["-static"]);
    bench.program("static-pie", &["-static-pie"]);
    assert_eq!(bench.libraries("static"), Ok(Libraries::default()));
    assert_eq!(bench.libraries("static-pie"), Ok(Libraries::default()));
}

#[test]
fn a_file_that_is_no_program_has_no_libraries() {
    let bench = Bench::new("other");
    for (name, content) in [("empty", &b""[..]), ("text", b"no program"), ("short", b"\x7fEL")] {
        bench.file(name, content);
        assert_eq!(bench.libraries(name), Ok(Libraries::default()), "{name}");
    }
}

#[test]
fn a_script_is_refused_with_the_name_of_its_interpreter() {
    let bench = Bench::new("script");
    let path = bench.file("script", b"#! /usr/bin/env  python3\nprint(1)\n");
    let error = bench.libraries("script").expect_err("a script is no program to jail");
    let line = format!(
        "'{}' is a script for '/usr/bin/env'; jail that program and place the script as a file",
        path.display()
    );
    assert_eq!(error.to_string(), line);
}

#[test]
fn a_corrupt_program_is_named() {
    let bench = Bench::new("corrupt");
    bench.program("main", &[]);
    let bytes = std::fs::read(bench.path("main")).expect("read the program");
    let path = bench.file("cut", &bytes[..100]);
    let error = bench.libraries("cut").expect_err("its tables are missing");
    assert!(
        error.to_string().starts_with(&format!("'{}' is a corrupt ELF file: ", path.display())),
        "{error}"
    );
    // At any length the result is an error or a list, and no panic.
    for length in (0..bytes.len()).step_by(97) {
        bench.file("cut", &bytes[..length]);
        let _ = bench.libraries("cut");
    }
}

#[test]
fn the_loader_is_placed_at_the_path_that_the_program_names() {
    let bench = Bench::new("loader");
    bench.program("main", &[]);
    let loader = bench.libraries("main").expect("this host has a loader").files[0].source.clone();
    std::os::unix::fs::symlink(&loader, bench.path("my-loader")).expect("create a symbolic link");
    let requested = bench.path("my-loader");
    bench.program("main", &[&format!("-Wl,--dynamic-linker={}", requested.display())]);
    let libraries = bench.libraries("main").expect("the loader exists");
    let first = &libraries.files[0];
    assert_eq!((first.path.absolute(), first.source.as_path()), (requested, loader.as_path()));
    bench.program("main", &["-Wl,--dynamic-linker=/no/such/loader"]);
    let error = bench.libraries("main").expect_err("there is no such loader");
    let line = format!(
        "'{}' needs the dynamic loader '/no/such/loader', which is not on this host; install it or use a static \
         executable",
        bench.path("main").display()
    );
    assert_eq!(error.to_string(), line);
}

#[test]
fn a_loader_of_another_c_library_is_refused() {
    let bench = Bench::new("foreign");
    bench.library("other.so.1", &[]);
    let loader = bench.path("other.so.1");
    bench.program("main", &[&format!("-Wl,--dynamic-linker={}", loader.display())]);
    let error = bench.libraries("main").expect_err("its directories are unknown");
    let line = format!(
        "'{}' needs the dynamic loader '{}', which is not glibc's, so its search path is unknown; use a static \
         executable",
        bench.path("main").display(),
        loader.display()
    );
    assert_eq!(error.to_string(), line);
}

#[test]
fn libraries_with_a_relative_rpath_go_to_a_built_in_directory() {
    let bench = Bench::new("origin");
    bench.library("lib/liba.so.1", &[]);
    bench.program("bin/main", &["lib/liba.so.1", "-Wl,-rpath,$ORIGIN/../lib"]);
    assert_eq!(bench.placed("bin/main"), map(&[(&format!("{}/liba.so.1", built_in()), "lib/liba.so.1")]));
}

#[test]
fn libraries_in_an_absolute_rpath_keep_their_path() {
    let bench = Bench::new("absolute");
    bench.library("lib/liba.so.1", &[]);
    let rpath = format!("-Wl,-rpath,/no/such/directory:{}/", bench.path("lib").display());
    for tags in ["-Wl,--enable-new-dtags", "-Wl,--disable-new-dtags"] {
        bench.program("main", &["lib/liba.so.1", &rpath, tags]);
        let kept = bench.path("lib/liba.so.1").display().to_string();
        assert_eq!(bench.placed("main"), map(&[(&kept, "lib/liba.so.1")]), "{tags}");
    }
}

#[test]
fn a_path_with_dots_is_not_created_in_the_jail() {
    let bench = Bench::new("back");
    bench.library("lib/liba.so.1", &[]);
    std::fs::create_dir(bench.path("bin")).expect("create a directory");
    let rpath = format!("-Wl,-rpath,{}/../lib", bench.path("bin").display());
    bench.program("main", &["lib/liba.so.1", &rpath]);
    assert_eq!(bench.placed("main"), map(&[(&format!("{}/liba.so.1", built_in()), "lib/liba.so.1")]));
}

#[test]
fn libraries_of_libraries_are_found_once_each() {
    let bench = Bench::new("transitive");
    bench.library("lib/libc1.so", &[]);
    bench.library("lib/libb.so", &["lib/libc1.so", "-Wl,-rpath,$ORIGIN"]);
    bench.library("lib/liba.so", &["lib/libb.so", "lib/libc1.so", "-Wl,-rpath,$ORIGIN"]);
    bench.program("main", &["lib/liba.so", "lib/libb.so", "-Wl,-rpath,$ORIGIN/lib"]);
    let at = built_in();
    let wanted =
        ["liba.so", "libb.so", "libc1.so"].map(|name| (format!("{at}/{name}"), format!("lib/{name}")));
    assert_eq!(bench.placed("main"), BTreeMap::from(wanted));
    let libraries = bench.libraries("main").expect("all libraries exist");
    let mut paths: Vec<_> = libraries.files.iter().map(|file| &file.path).collect();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), libraries.files.len(), "{libraries:?}");
}

#[test]
fn rpath_reaches_libraries_of_libraries_and_runpath_does_not() {
    let bench = Bench::new("inherit");
    bench.library("lib/libb.so", &[]);
    bench.library("lib/liba.so", &["lib/libb.so"]);
    let flags = ["lib/liba.so", "-Wl,-rpath,$ORIGIN/lib"];
    bench.program("main", &[&flags[..], &["-Wl,--disable-new-dtags"]].concat());
    assert_eq!(bench.placed("main").len(), 2, "liba finds libb by the program's RPATH");
    bench.program("main", &[&flags[..], &["-Wl,--enable-new-dtags"]].concat());
    let error = bench.libraries("main").expect_err("liba has no path of its own");
    assert!(matches!(&error, LibraryError::NoLibrary { library, .. } if library == "libb.so"), "{error}");
    // The RPATH of a program does not apply to a library with a RUNPATH.
    bench.library("lib/liba.so", &["lib/libb.so", "-Wl,-rpath,/nowhere", "-Wl,--enable-new-dtags"]);
    bench.program("main", &[&flags[..], &["-Wl,--disable-new-dtags"]].concat());
    bench.libraries("main").expect_err("liba looks in its RUNPATH only");
}

#[test]
fn a_missing_library_is_named_with_its_search_path() {
    let bench = Bench::new("missing");
    bench.library("lib/libb.so", &[]);
    bench.library("lib/liba.so", &["lib/libb.so", "-Wl,-rpath,$ORIGIN/plugins"]);
    bench.program("main", &["lib/liba.so", "-Wl,-rpath,$ORIGIN/lib"]);
    let error = bench.libraries("main").expect_err("libb is not where liba looks").to_string();
    let lib = bench.path("lib");
    let begins = format!(
        "shared library 'libb.so' of '{0}/liba.so' was not found in {0}/plugins, {1}, ",
        lib.display(),
        bench.path("no.cache").display(),
    );
    assert!(error.starts_with(&begins), "{error}");
    assert!(error.contains(&format!(", {}", built_in())), "{error}");
    assert!(error.ends_with("; install it or use a static executable"), "{error}");
}

#[test]
fn a_library_for_another_machine_is_skipped() {
    let bench = Bench::new("machine");
    bench.library("good/liba.so", &[]);
    // The same file with another machine in its header, and files that are no library.
    let mut bytes = std::fs::read(bench.path("good/liba.so")).expect("read the library");
    bytes[18] ^= 0xff;
    bench.file("wrong/liba.so", &bytes);
    bench.file("text/liba.so", b"INPUT(liba.so.1)\n");
    std::fs::create_dir_all(bench.path("directory/liba.so")).expect("create a directory in the way");
    // Opening a pipe would wait for a writer.
    std::fs::create_dir(bench.path("pipe")).expect("create a directory");
    let (mode, kind) = (rustix::fs::Mode::RWXU, rustix::fs::FileType::Fifo);
    rustix::fs::mknodat(rustix::fs::CWD, bench.path("pipe/liba.so"), kind, mode, 0).expect("create a pipe");
    let rpath = ["wrong", "text", "directory", "pipe", "good"]
        .map(|name| bench.path(name).display().to_string())
        .join(":");
    bench.program("main", &["good/liba.so", &format!("-Wl,-rpath,{rpath}")]);
    let kept = bench.path("good/liba.so").display().to_string();
    assert_eq!(bench.placed("main"), map(&[(&kept, "good/liba.so")]));
}

#[test]
fn a_symlink_is_placed_as_its_file_under_the_requested_name() {
    let bench = Bench::new("link");
    bench.library("lib/liba.so.1", &[]);
    std::fs::rename(bench.path("lib/liba.so.1"), bench.path("lib/liba.so.1.2.3"))
        .expect("rename the library");
    std::os::unix::fs::symlink("liba.so.1.2.3", bench.path("lib/liba.so.1")).expect("create a symbolic link");
    bench.program("main", &["lib/liba.so.1", "-Wl,-rpath,$ORIGIN/lib"]);
    assert_eq!(bench.placed("main"), map(&[(&format!("{}/liba.so.1", built_in()), "lib/liba.so.1.2.3")]));
}

#[test]
fn a_library_that_only_the_cache_names_is_found() {
    let bench = Bench::new("cache");
    bench.library("lib/liba.so.1", &[]);
    bench.program("main", &["lib/liba.so.1"]);
    bench.libraries("main").expect_err("no path names its directory");
    let list = bench.file("list", format!("{}\n", bench.path("lib").display()).as_bytes());
    let cache = bench.path("ld.so.cache");
    let ldconfig = ["/usr/sbin/ldconfig", "/sbin/ldconfig"].into_iter().find(|path| Path::new(path).exists());
    let mut ldconfig = Command::new(ldconfig.expect("ldconfig, which is part of glibc"));
    let output =
        ldconfig.arg("-X").arg("-C").arg(&cache).arg("-f").arg(&list).output().expect("run ldconfig");
    assert!(output.status.success(), "{output:?}");
    let libraries =
        Libraries::with_cache(&exec_file(&bench.path("main")), &cache).expect("it is in the cache");
    let library = libraries.files.iter().find(|file| file.source.as_path() == bench.path("lib/liba.so.1"));
    let path = library.expect("the library is placed").path.to_string();
    assert_eq!(path, format!("{}/liba.so.1", built_in()), "in the jail there is no cache");
}

#[test]
fn a_library_may_have_no_path_without_default_directories() {
    let bench = Bench::new("nodefaultlib");
    bench.library("lib/liba.so", &[]);
    // Without the C library, which is in a built-in directory.
    let flags = ["-nostdlib", "-Wl,-e,main", "-Wl,-z,nodefaultlib", "lib/liba.so"];
    bench.program("main", &[&flags[..], &["-Wl,-rpath,$ORIGIN/lib"]].concat());
    let error = bench.libraries("main").expect_err("its loader in the jail searches nowhere");
    let line = format!(
        "shared library 'liba.so' ('{}') of '{}' has no path in the jail: the dynamic loader there would search \
         nowhere; use an absolute RPATH or a static executable",
        bench.path("lib/liba.so").display(),
        bench.path("main").display()
    );
    assert_eq!(error.to_string(), line);
    // With an absolute directory in the search path it has one.
    bench.program("main", &[&flags[..], &["-Wl,-rpath,$ORIGIN/lib:/opt/jail"]].concat());
    assert_eq!(bench.placed("main"), map(&[("/opt/jail/liba.so", "lib/liba.so")]));
}

#[test]
fn a_library_that_is_needed_by_its_path_is_placed_there() {
    let bench = Bench::new("path");
    // Without a DT_SONAME it is needed by the path on the linker's command line.
    let library = bench.path("lib/liba.so");
    std::fs::create_dir(bench.path("lib")).expect("create a directory");
    bench.compile("lib/liba.so", "int a(void) { return 1; }\n", &["-shared", "-fPIC"]);
    let path = library.display().to_string();
    bench.program("main", &[&path]);
    assert_eq!(bench.placed("main"), map(&[(&path, "lib/liba.so")]));
}

/// The libraries that this host's dynamic loader would load, by name, with symbolic links resolved.
fn loaded(program: &Path) -> BTreeMap<String, PathBuf> {
    let output = Command::new(program)
        .env_clear()
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .output()
        .expect("run a program's loader");
    let text = String::from_utf8(output.stdout).expect("paths are text here");
    let resolve = |path: &str| Path::new(path).canonicalize().expect("the loader has found it");
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        match (fields.next()?, fields.next()?, fields.next()) {
            (name, "=>", Some(path)) => Some((name.to_owned(), resolve(path))),
            // The dynamic loader itself, by its path; the kernel's library has none.
            (path, _, None) if path.starts_with('/') => Some((path.to_owned(), resolve(path))),
            _ => None,
        }
    });
    lines.collect()
}

#[test]
fn libraries_are_those_that_the_hosts_loader_loads() {
    // Of these the installed ones: from one library to fifty.
    let programs = [
        "ls",
        "bash",
        "gcc",
        "perl",
        "python3",
        "git",
        "ssh",
        "systemctl",
        "qemu-system-x86_64",
        "tar",
        "ip",
    ];
    let mut compared = 0;
    for name in programs {
        let path = Path::new("/usr/bin").join(name);
        let Ok(executable) = ExecFile::new(&path) else { continue };
        let libraries = Libraries::of(&executable).unwrap_or_else(|e| panic!("{name}: {e}"));
        let truth = loaded(executable.path().as_path());
        if truth.is_empty() {
            // A static program runs as usual, and prints no libraries.
            assert_eq!(libraries, Libraries::default(), "{name}");
            continue;
        }
        let name_of = |path: &Path| path.file_name().expect("a file has a name").to_owned();
        let wanted: BTreeMap<_, _> =
            truth.iter().map(|(name, source)| (name_of(Path::new(name)), source.clone())).collect();
        let found: BTreeMap<_, _> = libraries
            .files
            .iter()
            .map(|file| (name_of(&file.path.absolute()), file.source.as_path().to_owned()))
            .collect();
        assert_eq!(found, wanted, "{name}");
        compared += 1;
    }
    assert!(compared >= 3, "only {compared} programs of {programs:?} are dynamic on this host");
}
