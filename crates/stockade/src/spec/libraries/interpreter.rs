//! The program that the kernel executes instead of an executable that names it.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::elf;

/// The program that the kernel executes instead of an executable that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interpreter {
    /// The dynamic loader of an ELF executable.
    Loader(PathBuf),
    /// The program in the first line of a script.
    OfScript(PathBuf),
}

impl Interpreter {
    /// The interpreter that an open executable names; `None` if it names none, or cannot be read.
    pub(crate) fn named_by(mut executable: File) -> Option<Self> {
        if !executable.metadata().ok()?.is_file() {
            return None;
        }
        let mut beginning = Vec::new();
        executable.by_ref().take(elf::LONGEST_LINE).read_to_end(&mut beginning).ok()?;
        match beginning.strip_prefix(b"#!") {
            Some(line) => Some(Self::OfScript(elf::interpreter_of(line))),
            None => elf::loader_of(executable, &beginning).map(Self::Loader),
        }
    }

    /// Its path, which the kernel opens in the jail.
    pub fn path(&self) -> &Path {
        match self {
            Self::Loader(path) | Self::OfScript(path) => path,
        }
    }
}

impl fmt::Display for Interpreter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Loader(_) => "dynamic loader",
            Self::OfScript(_) => "interpreter",
        };
        write!(f, "{kind} '{}'", self.path().to_string_lossy().escape_debug())
    }
}
