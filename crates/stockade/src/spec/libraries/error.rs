//! Why the shared libraries of an executable cannot be determined.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::spec::Reason;

/// A missing or unknown file, with the file that needs it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    /// A file that cannot be read.
    #[error("cannot read '{}': {}", .path.display(), Reason(*.cause))]
    Read {
        /// The executable or library.
        path: PathBuf,
        /// The kernel's error.
        cause: Errno,
    },
    /// A file that begins as an ELF file and does not go on as one.
    #[error("'{}' is a corrupt ELF file: {problem}", .path.display())]
    Corrupt {
        /// The executable or library.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// A script, for which the kernel would run another program.
    #[error(
        "'{}' is a script for '{}'; jail that program and place the script as a file", .path.display(),
        .interpreter.display()
    )]
    Script {
        /// The script.
        path: PathBuf,
        /// The program that its first line names.
        interpreter: PathBuf,
    },
    /// An executable whose dynamic loader this host does not have.
    #[error(
        "'{}' needs the dynamic loader '{}', which is not on this host; install it or use a static executable",
        .path.display(), .loader.display()
    )]
    NoLoader {
        /// The executable.
        path: PathBuf,
        /// The path of its dynamic loader.
        loader: PathBuf,
    },
    /// An executable whose dynamic loader finds libraries in another way than glibc's.
    #[error(
        "'{}' needs the dynamic loader '{}', which is not glibc's, so its search path is unknown; use a static \
         executable",
        .path.display(), .loader.display()
    )]
    UnknownLoader {
        /// The executable.
        path: PathBuf,
        /// Its dynamic loader.
        loader: PathBuf,
    },
    /// A library that was not found.
    #[error(
        "shared library '{}' of '{}' was not found in {}; install it or use a static executable",
        .library.display(), .needed_by.display(), List(.searched)
    )]
    NoLibrary {
        /// The requested name.
        library: OsString,
        /// The file that needs it.
        needed_by: PathBuf,
        /// The searched directories, and the dynamic loader's cache.
        searched: Vec<PathBuf>,
    },
    /// A library that the host has and that cannot be where the dynamic loader in the jail looks.
    #[error(
        "shared library '{}' ('{}') of '{}' has no path in the jail: the dynamic loader there would search {}; use an absolute \
         RPATH or a static executable",
        .library.display(), .found.display(), .needed_by.display(), Nowhere(.searched)
    )]
    NoPath {
        /// The requested name.
        library: OsString,
        /// Its path on the host.
        found: PathBuf,
        /// The file that needs it.
        needed_by: PathBuf,
        /// The directories that the dynamic loader in the jail would search.
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
        if self.0.is_empty() { f.write_str("nowhere") } else { write!(f, "only {}", List(self.0)) }
    }
}
