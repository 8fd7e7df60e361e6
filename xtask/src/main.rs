//! Repeated tasks, run as `cargo xtask COMMAND`.

mod bench;
mod check;
mod command;
mod dist;
mod documents;
mod guide;
mod package_test;
mod pictures;
mod python;
mod qemu;
mod rooms;
mod setup;
mod summary;
mod test;
mod vm;
mod words;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  setup         install the Debian packages that the tests need (as root)
  test          run setup, then all tests; print the time of each suite and the skipped tests
  vm-test       run the tests that need cgroup v2 only, in a virtual machine
  python-test   install the Python package, check its types and run its tests
  python-bench  compare the Python package with a class that runs programs
  vm-shell      open a shell in the virtual machine
  qemu          boot a kernel under QEMU in a jail (examples/qemu.sh)
  dist          build the archive and the Debian package in target/packages (--twice: build again elsewhere and compare)
  package-test  install, try and purge the Debian package in a separate Debian
  bench         measure jails, their floors and their peers (--quick: a minute, --smoke: seconds, --vm: cgroup v2 in the
                virtual machine)
  check         check formatting, rooms, words, lints, documentation, dependencies and hyperlinks
  rooms         draw docs/img/rooms.svg, then check the imports between the rooms of the source
  words         print the words to replace in documents, pictures, comments and messages (PATH...: in these files)
  guide         build the guide (docs/guide) to target/guide
  pictures      draw the README's pictures of terminals in docs/img (as root)
  ci            run check, test and package-test
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["setup"] => setup::setup(),
        ["test"] => summary::summarised(test::test),
        ["vm-test"] => summary::summarised(vm::test),
        ["python-test"] => summary::summarised(python::test),
        ["python-bench"] => python::bench(),
        ["vm-shell"] => vm::shell(),
        ["qemu"] => qemu::qemu(),
        ["bench", ref flags @ ..] => bench::bench(flags),
        ["dist"] => dist::dist(),
        ["dist", "--twice"] => dist::twice(),
        ["package-test"] => package_test::test(),
        ["guide"] => guide::guide(),
        ["pictures"] => pictures::pictures(),
        ["rooms"] => rooms::rooms(),
        ["words", ref paths @ ..] => words::words(paths),
        ["check"] => check::check(),
        ["ci"] => {
            check::check().and_then(|()| summary::summarised(test::test)).and_then(|()| package_test::test())
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::FAILURE;
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("xtask: {problem}");
            ExitCode::FAILURE
        }
    }
}
