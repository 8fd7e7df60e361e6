//! Development tasks, as `cargo xtask COMMAND`.

mod bench;
mod check;
mod command;
mod dist;
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

  setup         install what the tests need (Debian packages, as root)
  test          the same, then run every test; print the time of each suite and the skipped tests
  vm-test       of these, those that need a machine with pure cgroup v2, in a virtual one
  python-test   install the Python package, check its types and run its tests
  python-bench  compare it with a class that runs programs
  vm-shell      a shell in that machine
  qemu          boot a kernel under QEMU in a jail (the example examples/qemu.sh)
  dist          the archive and the Debian package, in target/packages (--twice: and again elsewhere, for the same bytes)
  package-test  install the Debian package in a Debian of its own, try it, and purge it
  bench         how fast jails are, next to their floors and peers (--quick a minute, --smoke seconds);
                --vm cgroup v2 in that machine
  check         formatting, rooms, words, lints, documentation, dependencies, the guide's links
  rooms         draw docs/img/rooms.svg, then check which room of the source imports which
  words         list the words to avoid in documents, comments and messages, with their replacements (PATH...)
  guide         build the guide (docs/guide) to target/guide
  pictures      recreate the pictures of terminals in docs/img (as root)
  ci            check, then test, then package-test
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
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
