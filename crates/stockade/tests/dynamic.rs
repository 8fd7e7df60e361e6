//! VMMs that are not linked statically, in jails with their closure.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use stockade::spec::libraries::Libraries;
use stockade::spec::{ExecFile, HostPath, JailSpec};
use stockade::steps::Step;
use stockade::{Created, ErrorKind, ExitStatus, How, Placement, Streams};
use testkit::{Guard, Powerful, privileged};

/// A jail for a program, with its closure.
fn spec(guard: &Guard, program: &Path, words: &[&str]) -> JailSpec {
    let base = HostPath::future_directory(&guard.base()).unwrap();
    let vmm = ExecFile::new(program).unwrap();
    let mut spec = JailSpec::new(guard.named("jail").parse().unwrap(), vmm, base);
    spec.libraries = Libraries::of(&spec.exec_file).unwrap();
    spec.arguments = words.iter().map(Into::into).collect();
    spec
}

/// Runs a jail to its end and tears it down: what it said on both streams, and how it ended.
fn live(prepared: Created) -> (String, ExitStatus) {
    let (from, to) = std::io::pipe().unwrap();
    let errors = OwnedFd::from(to.try_clone().unwrap());
    let streams = Streams { stdin: None, stdout: Some(to.into()), stderr: Some(errors) };
    let mut running = prepared.launch(streams).unwrap();
    let said = std::io::read_to_string(from).unwrap();
    let ended = running.wait().unwrap();
    let report = running.teardown().unwrap();
    assert!(report.is_clean(), "{report:?}");
    (said, ended)
}

/// Compiles a file of the test's directory.
fn compile(guard: &Guard, file: &str, source: &str, flags: &[&str]) -> PathBuf {
    let path = guard.directory().join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let source = guard.file(&format!("{}.c", file.replace('/', "-")), source);
    let mut gcc = Command::new("gcc");
    let output =
        testkit::run_with(gcc.current_dir(guard.directory()).arg("-o").arg(&path).arg(source).args(flags));
    assert_eq!(output.code, 0, "gcc, which the tests need: {output:?}");
    path
}

/// A program that calls through three libraries: one beside it, one that this one finds relative to
/// itself, and one in a directory that is named in full.
fn layered(guard: &Guard) -> PathBuf {
    let full = format!("-Wl,-rpath,{}", guard.directory().join("full").display());
    let library = |file: &str, source: &str, flags: &[&str]| {
        let name = Path::new(file).file_name().unwrap().to_str().unwrap();
        let soname = format!("-Wl,-soname,{name}");
        compile(guard, file, source, &[&["-shared", "-fPIC", &soname], flags].concat());
    };
    library("full/liblast.so.3", "int last(void) { return 40; }", &[]);
    let middle = "int last(void); int middle(void) { return last() + 1; }";
    library("lib/deep/libmiddle.so.2", middle, &["full/liblast.so.3", &full]);
    let first = "int middle(void); int first(void) { return middle() + 1; }";
    library("lib/libfirst.so.1", first, &["lib/deep/libmiddle.so.2", "-Wl,-rpath,$ORIGIN/deep"]);
    let program = ["lib/libfirst.so.1", "-Wl,-rpath,$ORIGIN/../lib", "-Wl,--allow-shlib-undefined"];
    compile(guard, "bin/layered", "int first(void); int main(void) { return first(); }", &program)
}

#[test]
fn a_program_finds_its_libraries_in_the_jail_wherever_it_found_them_on_the_host() {
    privileged!(guard, {
        let program = layered(&guard);
        assert_eq!(testkit::run_with(&mut Command::new(&program)).code, 42, "it works on the host");
        let spec = spec(&guard, &program, &[]);
        let (said, ended) = live(guard.store().create(&spec).unwrap());
        assert_eq!((said.as_str(), ended), ("", ExitStatus::Exited(42)));
    });
}

#[test]
fn libraries_have_no_powers_in_the_jail_and_that_is_said_of_each() {
    privileged!(guard, {
        let program = layered(&guard);
        let libraries = ["lib/libfirst.so.1", "lib/deep/libmiddle.so.2", "full/liblast.so.3"];
        let powers = libraries.map(|file| guard.directory().join(file)).into_iter().zip(Powerful::ALL);
        let powers: Vec<_> = powers.collect();
        for (file, power) in &powers {
            power.give_to(file);
        }
        let mut spec = spec(&guard, &program, &[]);
        let prepared = guard.store().create(&spec).unwrap();
        assert_eq!(prepared.stripped().len(), powers.len());
        for (file, power) in &powers {
            let said = prepared.stripped().iter().find(|stripped| stripped.path.as_path() == file).unwrap();
            assert_eq!(said.to_string(), format!("the {} of {}", power.words(), file.display()));
            let placed = spec.libraries.files.iter().find(|placed| placed.source.as_path() == file).unwrap();
            let copy = prepared.root().join(placed.path.absolute().strip_prefix("/").unwrap());
            assert_eq!(fs::metadata(&copy).unwrap().mode() & 0o7000, 0);
            assert_eq!(testkit::attributes(copy.as_path()), [""; 0]);
        }
        assert_eq!(live(prepared).1, ExitStatus::Exited(42));
        spec.bind_executable = true;
        assert_eq!(guard.store().create(&spec).unwrap().stripped(), []);
    });
}

#[test]
fn the_closure_is_on_the_receipt() {
    privileged!(guard, {
        let spec = spec(&guard, &layered(&guard), &[]);
        let prepared = guard.store().create(&spec).unwrap();
        let placed: Vec<_> = prepared
            .receipt()
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::PlacedFile(file) => Some((file.source.clone(), file.path.clone())),
                _ => None,
            })
            .collect();
        for file in &spec.libraries.files {
            assert!(placed.contains(&(file.source.clone(), file.path.clone())), "{file:?} of {placed:?}");
            let inside = prepared.root().join(file.path.absolute().strip_prefix("/").unwrap());
            assert_eq!(fs::read(&inside).unwrap(), fs::read(&file.source).unwrap(), "{inside}");
        }
        assert!(
            spec.libraries.files.len() >= 5,
            "the loader, the C library and three more: {:?}",
            spec.libraries
        );
        assert!(prepared.teardown().unwrap().is_clean());
    });
}

#[test]
fn without_its_closure_a_program_is_not_executed_and_the_error_says_why() {
    privileged!(guard, {
        let mut spec = spec(&guard, &layered(&guard), &[]);
        spec.libraries = Libraries::default();
        let error = guard.store().create(&spec).unwrap().launch(Streams::default()).expect_err("no loader");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let said = "failed to execute in the jail: /layered: No such file or directory (os error 2); the file is \
                    in the jail, so its interpreter is not: link it statically, or place its closure too";
        assert_eq!(error.to_string(), said);
    });
}

#[test]
fn a_directory_that_is_in_the_way_of_the_closure_is_refused_and_the_closure_stays() {
    privileged!(guard, {
        let spec = spec(&guard, &layered(&guard), &[]);
        let mut prepared = guard.store().create(&spec).unwrap();
        let steps = prepared.receipt().steps.len();
        let directory = guard.directory().join("lib");
        let error = prepared.place(&directory).expect_err("/lib has the C library in it");
        assert_eq!(
            error.to_string(),
            "/lib is in the jail already, and a directory is placed only where nothing is"
        );
        assert_eq!(error.kind(), ErrorKind::InvalidSpec);
        assert_eq!(prepared.receipt().steps.len(), steps, "it is not on the receipt");
        for how in [How::Link, How::Node] {
            let error = prepared
                .place(Placement::new(&directory).named("opt/lib").how(how))
                .expect_err("no such way");
            let begin = format!("{} cannot be placed by {how}: ", directory.display());
            assert!(error.to_string().starts_with(&begin), "{error}");
        }
        let placed = prepared.place(Placement::new(&directory).named("opt/lib")).unwrap();
        assert_eq!(placed.to_string(), "/opt/lib");
        assert_eq!(live(prepared).1, ExitStatus::Exited(42));
    });
}

/// Python's standard library without what is only there for Debian's own tools: links to files elsewhere, and
/// the parts of it that are large and not needed here.
fn standard_library(guard: &Guard, from: &Path) -> PathBuf {
    let to = guard.directory().join("library");
    let copied = testkit::run_with(Command::new("cp").arg("-r").arg(from).arg(&to));
    assert_eq!(copied.code, 0, "{copied:?}");
    let entries = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().path());
    for entry in entries {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        if entry.is_symlink() || name == "test" {
            fs::remove_file(&entry).or_else(|_| fs::remove_dir_all(&entry)).unwrap();
        } else if name.starts_with("config-") {
            fs::remove_dir_all(&entry).unwrap();
        }
    }
    to
}

#[test]
fn python_runs_in_a_jail_with_its_standard_library() {
    let python = Path::new("/usr/bin/python3");
    if !testkit::has(python.exists(), std::any::type_name_of_val(&|| ()), "/usr/bin/python3") {
        return;
    }
    privileged!(guard, {
        let python = python.canonicalize().unwrap();
        let version = python.file_name().unwrap().to_str().unwrap();
        let library = Path::new("/usr/lib").join(version);
        // Debian's own has links that lead out of it.
        let spec =
            spec(&guard, &python, &["-c", "import json, math; print(json.dumps(1 + 1), math.floor(2.5))"]);
        let mut prepared = guard.store().create(&spec).unwrap();
        prepared.place(Placement::new(standard_library(&guard, &library)).named(&library)).unwrap();
        assert_eq!(live(prepared), ("2 2\n".to_owned(), ExitStatus::Exited(0)));
    });
}
