//! The checks that run no program of the workspace.

use crate::command::{Done, cargo, run};
use crate::{documents, guide, python, rooms, setup, words};

pub(crate) fn check() -> Done {
    run(&mut cargo(&["fmt", "--check"]))?;
    rooms::check()?;
    words::words(&[])?;
    documents::hyperlinks()?;
    run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    let document = &["doc", "--workspace", "--no-deps", "--document-private-items"];
    run(cargo(document).env("RUSTDOCFLAGS", "-D warnings"))?;
    setup::cargo_deny()?;
    run(&mut cargo(&["deny", "check", "bans", "licenses", "sources"]))?;
    guide::guide()?;
    python::check()
}
