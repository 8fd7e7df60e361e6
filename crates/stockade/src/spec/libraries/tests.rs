//! Small programs and libraries, built as they are needed, and what is made of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{Libraries, LibraryError};
use crate::spec::ExecFile;

/// A directory with programs, removed at the end.
struct Bench {
    directory: PathBuf,
}

impl Bench {
    fn new(test: &str) -> Self {
        let name = format!("stockade-closure-{test}-{}", std::process::id());
        let directory =
            std::env::temp_dir().canonicalize().expect("a directory for temporary files").join(name);
        std::fs::create_dir_all(&directory).expect("make a directory for the test");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A file, in a directory that is made for it.
    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("it is in the bench")).expect("make its directory");
        std::fs::write(&path, content).expect("write a file");
        path
    }

    /// A shared library with that file's name as its own name.
    fn library(&self, file: &str, flags: &[&str]) {
        let name = Path::new(file).file_name().and_then(|name| name.to_str()).expect("it has a name");
        let function = name.split('.').next().expect("a name before the dot");
        let soname = format!("-Wl,-soname,{name}");
        let words = [&["-shared", "-fPIC", &soname][..], flags].concat();
        self.compile(file, &format!("int {function}(void) {{ return 1; }}\n"), &words);
    }

    /// A program.
    fn program(&self, file: &str, flags: &[&str]) {
        self.compile(file, "int main(void) { return 0; }\n", flags);
    }

    /// Runs the compiler in the bench, which tells from there where libraries are. They stay needed even if
    /// nothing of them is used.
    fn compile(&self, file: &str, source: &str, flags: &[&str]) {
        let source = self.file(&format!("{file}.c"), source.as_bytes());
        let mut gcc = Command::new("gcc");
        gcc.current_dir(&self.directory).args(["-o", file]).arg(&source);
        // What a library needs in turn is not for the linker to look for.
        gcc.args(["-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined"]).args(flags);
        let output = gcc.output().expect("run gcc, which the tests need");
        assert!(output.status.success(), "{gcc:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn closure(&self, file: &str) -> Result<Libraries, LibraryError> {
        Libraries::with_cache(&exec_file(&self.path(file)), &self.path("no.cache"))
    }

    /// What of the closure comes from the bench: path in the jail, and the source in the bench.
    fn placed(&self, file: &str) -> BTreeMap<String, String> {
        let closure = self.closure(file).unwrap_or_else(|e| panic!("{file}: {e}"));
        let own = closure.files.iter().filter_map(|file| {
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
    ExecFile::new(path).expect("the executable is there")
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(path, source)| ((*path).to_owned(), (*source).to_owned())).collect()
}

/// The first directory that this host's loader looks in by itself, which is where others go.
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
    assert_eq!(bench.closure("static"), Ok(Libraries::default()));
    assert_eq!(bench.closure("static-pie"), Ok(Libraries::default()));
}

#[test]
fn what_is_no_program_is_left_to_the_kernel() {
    let bench = Bench::new("other");
    for (name, content) in [("empty", &b""[..]), ("text", b"no program"), ("short", b"\x7fEL")] {
        bench.file(name, content);
        assert_eq!(bench.closure(name), Ok(Libraries::default()), "{name}");
    }
}

#[test]
fn a_script_is_refused_with_the_name_of_its_interpreter() {
    let bench = Bench::new("script");
    let path = bench.file("script", b"#! /usr/bin/env  python3\nprint(1)\n");
    let error = bench.closure("script").expect_err("a script is no program to jail");
    let said = format!(
        "{} is a script for /usr/bin/env: jail that program, and place the script as a file",
        path.display()
    );
    assert_eq!(error.to_string(), said);
}

#[test]
fn a_damaged_program_is_named() {
    let bench = Bench::new("damaged");
    bench.program("main", &[]);
    let bytes = std::fs::read(bench.path("main")).expect("read the program");
    let path = bench.file("cut", &bytes[..100]);
    let error = bench.closure("cut").expect_err("its tables are missing");
    assert!(error.to_string().starts_with(&format!("{} is a damaged ELF file: ", path.display())), "{error}");
    // Wherever it is cut off, it is an error or a closure and no panic.
    for length in (0..bytes.len()).step_by(97) {
        bench.file("cut", &bytes[..length]);
        let _ = bench.closure("cut");
    }
}

#[test]
fn the_loader_is_placed_exactly_where_the_program_asks_for_it() {
    let bench = Bench::new("loader");
    bench.program("main", &[]);
    let loader = bench.closure("main").expect("this host has a loader").files[0].source.clone();
    std::os::unix::fs::symlink(&loader, bench.path("my-loader")).expect("make a link");
    let asked = bench.path("my-loader");
    bench.program("main", &[&format!("-Wl,--dynamic-linker={}", asked.display())]);
    let closure = bench.closure("main").expect("the loader is there");
    let first = &closure.files[0];
    assert_eq!((first.path.absolute(), first.source.as_path()), (asked, loader.as_path()));
    bench.program("main", &["-Wl,--dynamic-linker=/no/such/loader"]);
    let error = bench.closure("main").expect_err("there is no such loader");
    let said = format!(
        "{} needs the loader /no/such/loader, which is not on this host",
        bench.path("main").display()
    );
    assert_eq!(error.to_string(), said);
}

#[test]
fn a_loader_of_another_c_library_is_refused() {
    let bench = Bench::new("foreign");
    bench.library("other.so.1", &[]);
    let loader = bench.path("other.so.1");
    bench.program("main", &[&format!("-Wl,--dynamic-linker={}", loader.display())]);
    let error = bench.closure("main").expect_err("nobody knows where it looks");
    let said = format!(
        "{} needs the loader {}, which is not glibc's: where it looks for libraries is not known",
        bench.path("main").display(),
        loader.display()
    );
    assert_eq!(error.to_string(), said);
}

#[test]
fn libraries_relative_to_the_program_go_where_its_loader_looks_by_itself() {
    let bench = Bench::new("origin");
    bench.library("lib/liba.so.1", &[]);
    bench.program("bin/main", &["lib/liba.so.1", "-Wl,-rpath,$ORIGIN/../lib"]);
    assert_eq!(bench.placed("bin/main"), map(&[(&format!("{}/liba.so.1", built_in()), "lib/liba.so.1")]));
}

#[test]
fn libraries_in_a_directory_that_the_program_names_keep_their_path() {
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
fn a_step_back_in_a_directory_is_not_made_in_the_jail() {
    let bench = Bench::new("back");
    bench.library("lib/liba.so.1", &[]);
    std::fs::create_dir(bench.path("bin")).expect("make a directory");
    let rpath = format!("-Wl,-rpath,{}/../lib", bench.path("bin").display());
    bench.program("main", &["lib/liba.so.1", &rpath]);
    assert_eq!(bench.placed("main"), map(&[(&format!("{}/liba.so.1", built_in()), "lib/liba.so.1")]));
}

#[test]
fn what_libraries_need_is_found_too_and_each_file_once() {
    let bench = Bench::new("transitive");
    bench.library("lib/libc1.so", &[]);
    bench.library("lib/libb.so", &["lib/libc1.so", "-Wl,-rpath,$ORIGIN"]);
    bench.library("lib/liba.so", &["lib/libb.so", "lib/libc1.so", "-Wl,-rpath,$ORIGIN"]);
    bench.program("main", &["lib/liba.so", "lib/libb.so", "-Wl,-rpath,$ORIGIN/lib"]);
    let at = built_in();
    let wanted =
        ["liba.so", "libb.so", "libc1.so"].map(|name| (format!("{at}/{name}"), format!("lib/{name}")));
    assert_eq!(bench.placed("main"), BTreeMap::from(wanted));
    let closure = bench.closure("main").expect("all is there");
    let mut paths: Vec<_> = closure.files.iter().map(|file| &file.path).collect();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), closure.files.len(), "{closure:?}");
}

#[test]
fn runpath_is_not_handed_down_and_rpath_is() {
    let bench = Bench::new("inherit");
    bench.library("lib/libb.so", &[]);
    bench.library("lib/liba.so", &["lib/libb.so"]);
    let flags = ["lib/liba.so", "-Wl,-rpath,$ORIGIN/lib"];
    bench.program("main", &[&flags[..], &["-Wl,--disable-new-dtags"]].concat());
    assert_eq!(bench.placed("main").len(), 2, "liba finds libb by the program's RPATH");
    bench.program("main", &[&flags[..], &["-Wl,--enable-new-dtags"]].concat());
    let error = bench.closure("main").expect_err("liba has no path of its own");
    assert!(matches!(&error, LibraryError::NoLibrary { library, .. } if library == "libb.so"), "{error}");
    // Nor does the RPATH of a program reach a library that has a RUNPATH.
    bench.library("lib/liba.so", &["lib/libb.so", "-Wl,-rpath,/nowhere", "-Wl,--enable-new-dtags"]);
    bench.program("main", &[&flags[..], &["-Wl,--disable-new-dtags"]].concat());
    bench.closure("main").expect_err("liba looks in its RUNPATH only");
}

#[test]
fn a_library_that_is_missing_is_named_with_who_needs_it_and_where_it_was_looked_for() {
    let bench = Bench::new("missing");
    bench.library("lib/libb.so", &[]);
    bench.library("lib/liba.so", &["lib/libb.so", "-Wl,-rpath,$ORIGIN/plugins"]);
    bench.program("main", &["lib/liba.so", "-Wl,-rpath,$ORIGIN/lib"]);
    let error = bench.closure("main").expect_err("libb is not where liba looks").to_string();
    let lib = bench.path("lib");
    let begins = format!(
        "libb.so, which {0}/liba.so needs, was not found in {0}/plugins, {1}, ",
        lib.display(),
        bench.path("no.cache").display(),
    );
    assert!(error.starts_with(&begins), "{error}");
    assert!(error.contains(&format!(", {}", built_in())), "{error}");
}

#[test]
fn a_library_for_another_machine_is_passed_over() {
    let bench = Bench::new("machine");
    bench.library("good/liba.so", &[]);
    // The same with another machine in its header, and something that is no library at all.
    let mut bytes = std::fs::read(bench.path("good/liba.so")).expect("read the library");
    bytes[18] ^= 0xff;
    bench.file("wrong/liba.so", &bytes);
    bench.file("text/liba.so", b"INPUT(liba.so.1)\n");
    std::fs::create_dir_all(bench.path("folder/liba.so")).expect("make a directory in the way");
    // Opening a pipe would wait for somebody to write to it.
    std::fs::create_dir(bench.path("pipe")).expect("make a directory");
    let (mode, kind) = (rustix::fs::Mode::RWXU, rustix::fs::FileType::Fifo);
    rustix::fs::mknodat(rustix::fs::CWD, bench.path("pipe/liba.so"), kind, mode, 0).expect("make a pipe");
    let rpath = ["wrong", "text", "folder", "pipe", "good"]
        .map(|name| bench.path(name).display().to_string())
        .join(":");
    bench.program("main", &["good/liba.so", &format!("-Wl,-rpath,{rpath}")]);
    let kept = bench.path("good/liba.so").display().to_string();
    assert_eq!(bench.placed("main"), map(&[(&kept, "good/liba.so")]));
}

#[test]
fn a_link_is_placed_as_the_file_it_leads_to_under_the_name_that_is_asked_for() {
    let bench = Bench::new("link");
    bench.library("lib/liba.so.1", &[]);
    std::fs::rename(bench.path("lib/liba.so.1"), bench.path("lib/liba.so.1.2.3"))
        .expect("rename the library");
    std::os::unix::fs::symlink("liba.so.1.2.3", bench.path("lib/liba.so.1")).expect("make a link");
    bench.program("main", &["lib/liba.so.1", "-Wl,-rpath,$ORIGIN/lib"]);
    assert_eq!(bench.placed("main"), map(&[(&format!("{}/liba.so.1", built_in()), "lib/liba.so.1.2.3")]));
}

#[test]
fn a_library_that_only_the_cache_knows_is_found() {
    let bench = Bench::new("cache");
    bench.library("lib/liba.so.1", &[]);
    bench.program("main", &["lib/liba.so.1"]);
    bench.closure("main").expect_err("nothing says where it is");
    let list = bench.file("list", format!("{}\n", bench.path("lib").display()).as_bytes());
    let cache = bench.path("ld.so.cache");
    let ldconfig = ["/usr/sbin/ldconfig", "/sbin/ldconfig"].into_iter().find(|path| Path::new(path).exists());
    let mut ldconfig = Command::new(ldconfig.expect("ldconfig, which is part of glibc"));
    let made = ldconfig.arg("-X").arg("-C").arg(&cache).arg("-f").arg(&list).output().expect("run ldconfig");
    assert!(made.status.success(), "{made:?}");
    let closure = Libraries::with_cache(&exec_file(&bench.path("main")), &cache).expect("it is in the cache");
    let library = closure.files.iter().find(|file| file.source.as_path() == bench.path("lib/liba.so.1"));
    let path = library.expect("the library is placed").path.to_string();
    assert_eq!(path, format!("{}/liba.so.1", built_in()), "in the jail there is no cache");
}

#[test]
fn a_program_that_shuns_the_loaders_own_directories_may_have_no_place_for_a_library() {
    let bench = Bench::new("shun");
    bench.library("lib/liba.so", &[]);
    // No C library either: that is in one of those directories.
    let flags = ["-nostdlib", "-Wl,-e,main", "-Wl,-z,nodefaultlib", "lib/liba.so"];
    bench.program("main", &[&flags[..], &["-Wl,-rpath,$ORIGIN/lib"]].concat());
    let error = bench.closure("main").expect_err("its loader in the jail looks nowhere");
    let said = format!(
        "liba.so ({}), which {} needs, has no place in the jail: the loader there would look for it nowhere",
        bench.path("lib/liba.so").display(),
        bench.path("main").display()
    );
    assert_eq!(error.to_string(), said);
    // Where it also looks in a directory with a full name, there is one.
    bench.program("main", &[&flags[..], &["-Wl,-rpath,$ORIGIN/lib:/opt/jail"]].concat());
    assert_eq!(bench.placed("main"), map(&[("/opt/jail/liba.so", "lib/liba.so")]));
}

#[test]
fn a_library_that_is_asked_for_by_its_path_is_placed_there() {
    let bench = Bench::new("path");
    // Without a name of its own it is needed by the path that the linker was given.
    let library = bench.path("lib/liba.so");
    std::fs::create_dir(bench.path("lib")).expect("make a directory");
    bench.compile("lib/liba.so", "int a(void) { return 1; }\n", &["-shared", "-fPIC"]);
    let path = library.display().to_string();
    bench.program("main", &[&path]);
    assert_eq!(bench.placed("main"), map(&[(&path, "lib/liba.so")]));
}

/// The truth: what this host's own loader says it would load, by name, with links resolved.
fn loaded(program: &Path) -> BTreeMap<String, PathBuf> {
    let output = Command::new(program)
        .env_clear()
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .output()
        .expect("run a program's loader");
    let text = String::from_utf8(output.stdout).expect("paths are text here");
    let resolve = |path: &str| Path::new(path).canonicalize().expect("the loader has found it");
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        match (words.next()?, words.next()?, words.next()) {
            (name, "=>", Some(path)) => Some((name.to_owned(), resolve(path))),
            // The loader itself, by its path; the kernel's library has none.
            (path, _, None) if path.starts_with('/') => Some((path.to_owned(), resolve(path))),
            _ => None,
        }
    });
    lines.collect()
}

#[test]
fn closures_are_what_the_hosts_loader_loads() {
    // Whatever of these is installed: from one library to fifty.
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
        let closure = Libraries::of(&executable).unwrap_or_else(|e| panic!("{name}: {e}"));
        let truth = loaded(executable.path().as_path());
        if truth.is_empty() {
            // A program that needs no loader runs as usual, and says nothing of the kind.
            assert_eq!(closure, Libraries::default(), "{name}");
            continue;
        }
        let name_of = |path: &Path| path.file_name().expect("a file has a name").to_owned();
        let wanted: BTreeMap<_, _> =
            truth.iter().map(|(name, source)| (name_of(Path::new(name)), source.clone())).collect();
        let found: BTreeMap<_, _> = closure
            .files
            .iter()
            .map(|file| (name_of(&file.path.absolute()), file.source.as_path().to_owned()))
            .collect();
        assert_eq!(found, wanted, "{name}");
        compared += 1;
    }
    assert!(compared >= 3, "only {compared} programs of {programs:?} are dynamic on this host");
}
