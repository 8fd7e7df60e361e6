//! Dynamically linked VMMs, in jails with their shared libraries.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use stockade::spec::libraries::{Interpreter, Libraries};
use stockade::spec::{ExecFile, HostPath, JailSpec};
use stockade::steps::Step;
use stockade::{Created, Error, ErrorKind, ExitStatus, How, Placement, Streams};
use testkit::{Guard, Privilege, privileged};

/// A jail for a program, with its shared libraries.
fn spec(guard: &Guard, program: &Path, arguments: &[&str]) -> JailSpec {
    let base = HostPath::future_directory(&guard.base()).unwrap();
    let vmm = ExecFile::new(program).unwrap();
    let mut spec = JailSpec::new(guard.named("jail").parse().unwrap(), vmm, base);
    spec.libraries = Libraries::of(&spec.exec_file).unwrap();
    spec.arguments = arguments.iter().map(Into::into).collect();
    spec
}

/// Runs a jail to its end and tears it down. Returns the VMM's output on both streams, and its exit status.
fn live(created: Created) -> (String, ExitStatus) {
    let (from, to) = std::io::pipe().unwrap();
    let errors = OwnedFd::from(to.try_clone().unwrap());
    let streams = Streams { stdin: None, stdout: Some(to.into()), stderr: Some(errors) };
    let mut running = created.launch(streams).unwrap();
    let output = std::io::read_to_string(from).unwrap();
    let status = running.wait().unwrap();
    let report = running.teardown().unwrap();
    assert!(report.is_clean(), "{report:?}");
    (output, status)
}

/// Compiles a program or library to a file in the test's directory.
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

/// A program that calls a function through three libraries: the first is beside it, the second is found relative to the
/// first, the third is in an absolute directory.
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
fn a_program_finds_its_libraries_in_the_jail() {
    privileged!(guard, {
        let program = layered(&guard);
        assert_eq!(testkit::run_with(&mut Command::new(&program)).code, 42, "it works on the host");
        let spec = spec(&guard, &program, &[]);
        let (output, status) = live(guard.store().create(&spec).unwrap());
        assert_eq!((output.as_str(), status), ("", ExitStatus::Exited(42)));
    });
}

#[test]
fn libraries_have_no_privileges_in_the_jail_and_are_reported() {
    privileged!(guard, {
        let program = layered(&guard);
        let libraries = ["lib/libfirst.so.1", "lib/deep/libmiddle.so.2", "full/liblast.so.3"];
        let privileged = libraries.map(|file| guard.directory().join(file)).into_iter().zip(Privilege::ALL);
        let privileged: Vec<_> = privileged.collect();
        for (file, privilege) in &privileged {
            privilege.give_to(file);
        }
        let mut spec = spec(&guard, &program, &[]);
        let created = guard.store().create(&spec).unwrap();
        assert_eq!(created.stripped().len(), privileged.len());
        for (file, privilege) in &privileged {
            let stripped =
                created.stripped().iter().find(|stripped| stripped.path.as_path() == file).unwrap();
            assert_eq!(stripped.to_string(), format!("the {} of {}", privilege.text(), file.display()));
            let placed = spec.libraries.files.iter().find(|placed| placed.source.as_path() == file).unwrap();
            let copy = created.root().join(placed.path.absolute().strip_prefix("/").unwrap());
            assert_eq!(fs::metadata(&copy).unwrap().mode() & 0o7000, 0);
            assert_eq!(testkit::attributes(copy.as_path()), [""; 0]);
        }
        assert_eq!(live(created).1, ExitStatus::Exited(42));
        spec.bind_executable = true;
        assert_eq!(guard.store().create(&spec).unwrap().stripped(), []);
    });
}

#[test]
fn libraries_are_on_the_receipt() {
    privileged!(guard, {
        let spec = spec(&guard, &layered(&guard), &[]);
        let created = guard.store().create(&spec).unwrap();
        let placed: Vec<_> = created
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
            let inside = created.root().join(file.path.absolute().strip_prefix("/").unwrap());
            assert_eq!(fs::read(&inside).unwrap(), fs::read(&file.source).unwrap(), "{inside}");
        }
        assert!(
            spec.libraries.files.len() >= 5,
            "the dynamic loader, the C library and three more: {:?}",
            spec.libraries
        );
        assert!(created.teardown().unwrap().is_clean());
    });
}

#[test]
fn a_program_without_its_libraries_fails_with_the_reason() {
    privileged!(guard, {
        let mut spec = spec(&guard, &layered(&guard), &[]);
        spec.libraries = Libraries::default();
        let error = guard.store().create(&spec).unwrap().launch(Streams::default()).expect_err("no loader");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let Error::NoInterpreter { interpreter: Interpreter::Loader(loader), .. } = &error else {
            panic!("{error}")
        };
        assert!(loader.exists(), "{loader:?}");
        let line = format!(
            "cannot execute in the jail: /layered: its dynamic loader '{}' is not in the jail; place it with its shared \
             libraries, or use a static executable",
            loader.display()
        );
        assert_eq!(error.to_string(), line);
    });
}

#[test]
fn a_directory_in_the_way_of_the_libraries_is_refused() {
    privileged!(guard, {
        let spec = spec(&guard, &layered(&guard), &[]);
        let mut created = guard.store().create(&spec).unwrap();
        let steps = created.receipt().steps.len();
        let directory = guard.directory().join("lib");
        let error = created.place(&directory).expect_err("/lib has the C library in it");
        assert_eq!(
            error.to_string(),
            "'/lib' exists in the jail, and a directory is never placed over something; use another name"
        );
        assert_eq!(error.kind(), ErrorKind::InvalidSpec);
        assert_eq!(created.receipt().steps.len(), steps, "it is not on the receipt");
        for how in [How::Link, How::Node] {
            let error = created
                .place(Placement::new(&directory).named("opt/lib").how(how))
                .expect_err("no such method");
            let begin = format!("'{}' cannot be placed by {how}; use ", directory.display());
            assert!(error.to_string().starts_with(&begin), "{error}");
        }
        let placed = created.place(Placement::new(&directory).named("opt/lib")).unwrap();
        assert_eq!(placed.to_string(), "/opt/lib");
        assert_eq!(live(created).1, ExitStatus::Exited(42));
    });
}

/// Python's standard library, without Debian's symbolic links to files elsewhere and without large parts that the test
/// does not need.
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
        // A copy, since Debian's directory has symbolic links that lead out of it.
        let spec =
            spec(&guard, &python, &["-c", "import json, math; print(json.dumps(1 + 1), math.floor(2.5))"]);
        let mut created = guard.store().create(&spec).unwrap();
        created.place(Placement::new(standard_library(&guard, &library)).named(&library)).unwrap();
        assert_eq!(live(created), ("2 2\n".to_owned(), ExitStatus::Exited(0)));
    });
}
