//! Why no closure can be worked out.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use rustix::io::Errno;

/// What is missing or not understood, and who needs it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    /// A file that cannot be read.
    #[error("failed to read {} for what it needs: {cause}", .path.display())]
    Read {
        /// The executable or library.
        path: PathBuf,
        /// What the kernel said.
        cause: Errno,
    },
    /// A file that begins as an ELF file and does not go on as one.
    #[error("{} is a damaged ELF file: {problem}", .path.display())]
    Damaged {
        /// The executable or library.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A script, for which the kernel would run another program.
    #[error(
        "{} is a script for {}: jail that program, and place the script as a file", .path.display(),
        .interpreter.display()
    )]
    Script {
        /// The script.
        path: PathBuf,
        /// The program that its first line names.
        interpreter: PathBuf,
    },
    /// An executable whose loader this host does not have.
    #[error("{} needs the loader {}, which is not on this host", .path.display(), .loader.display())]
    NoLoader {
        /// The executable.
        path: PathBuf,
        /// Where its loader should be.
        loader: PathBuf,
    },
    /// An executable whose loader finds libraries in ways of its own.
    #[error(
        "{} needs the loader {}, which is not glibc's: where it looks for libraries is not known",
        .path.display(), .loader.display()
    )]
    UnknownLoader {
        /// The executable.
        path: PathBuf,
        /// Its loader.
        loader: PathBuf,
    },
    /// A library that is nowhere.
    #[error("{}, which {} needs, was not found in {}", .library.display(), .needed_by.display(), List(.searched))]
    NoLibrary {
        /// The name that is asked for.
        library: OsString,
        /// Who asks for it.
        needed_by: PathBuf,
        /// Where it was looked for: directories, and the loader's cache.
        searched: Vec<PathBuf>,
    },
    /// A library that the host has and that cannot be where the loader in the jail looks.
    #[error(
        "{} ({}), which {} needs, has no place in the jail: the loader there would look for it {}",
        .library.display(), .found.display(), .needed_by.display(), Nowhere(.searched)
    )]
    NoPlace {
        /// The name that is asked for.
        library: OsString,
        /// Where it is on the host.
        found: PathBuf,
        /// Who asks for it.
        needed_by: PathBuf,
        /// Where the loader in the jail would look.
        searched: Vec<PathBuf>,
    },
}

struct List<'a>(&'a [PathBuf]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("any directory: none is searched for it");
        }
        for (index, path) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}", path.display())?;
        }
        Ok(())
    }
}

struct Nowhere<'a>(&'a [PathBuf]);

impl fmt::Display for Nowhere<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("nowhere") } else { write!(f, "only in {}", List(self.0)) }
    }
}
