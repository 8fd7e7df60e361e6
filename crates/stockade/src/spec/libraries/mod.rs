//! The dynamic loader and the shared libraries that a dynamically linked executable needs in its jail.
//!
//! The search for a library follows glibc's dynamic loader on the host:
//!
//! 1. `DT_RPATH` of the file that needs it, and of the files that needed that one
//! 2. `DT_RUNPATH` of the file that needs it
//! 3. `/etc/ld.so.cache`
//! 4. the built-in directories of the dynamic loader
//!
//! The library is then placed where the dynamic loader searches *in the jail*. That can be another directory than on
//! the host:
//!
//! * The executable is at `/NAME` there, and without `/proc` its dynamic loader cannot know that. Directories that the
//!   executable gives relative to itself (`$ORIGIN`) are not searched. Those that a library gives relative to itself
//!   are.
//! * There is no `/etc/ld.so.cache`.
//!
//! So a library keeps its path if the dynamic loader in the jail searches that directory. Otherwise the library goes to
//! the first built-in directory, under the requested name. The dynamic loader itself keeps the path that the executable
//! names.
//!
//! # Limits
//!
//! * Files that a program opens at run time (`dlopen`: plug-ins, name services, character sets) are not found.
//! * The environment and `/etc/ld.so.preload` are ignored, since a jail has neither.
//! * Directories for some processors only (`glibc-hwcaps`) are skipped: the variant for every processor is taken.
//! * `$PLATFORM` is the machine's name.
//! * A library that is requested by two names, neither of them its own (`DT_SONAME`), becomes two libraries.
//! * Dynamic loaders of other C libraries (musl) are refused.

mod elf;
mod error;
mod interpreter;
mod ld_cache;
mod loader;
mod resolve;
mod search_path;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use error::LibraryError;
pub use interpreter::Interpreter;

use crate::spec::{ExecFile, HostPath, JailPath};
use elf::Content;
use loader::Loader;
use resolve::Resolver;

/// The dynamic loader and the shared libraries of an executable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Libraries {
    /// The dynamic loader first, then the libraries in the order of loading.
    pub files: Vec<Library>,
}

/// The dynamic loader or a shared library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Library {
    /// The file on the host, with all symbolic links resolved.
    pub source: HostPath,
    /// The path in the jail, where the dynamic loader opens it.
    pub path: JailPath,
}

impl Libraries {
    /// Finds the libraries of `executable`. A statically linked executable has none. A file that is no program has
    /// none either: the kernel refuses it.
    ///
    /// # Errors
    /// Returns a [`LibraryError`] if a file cannot be found, read or understood, or if `executable` is a script.
    pub fn of(executable: &ExecFile) -> Result<Self, LibraryError> {
        Self::with_cache(executable, Path::new(ld_cache::PATH))
    }

    fn with_cache(executable: &ExecFile, cache: &Path) -> Result<Self, LibraryError> {
        let path = executable.path().as_path();
        let image = match elf::read(path)? {
            Content::Elf(image) => image,
            Content::Script(interpreter) => {
                return Err(LibraryError::Script { path: path.to_owned(), interpreter });
            }
            Content::Other => return Ok(Self::default()),
        };
        // Without a dynamic loader no library is loaded, even if the file names some.
        let Some(interpreter) = &image.interpreter else { return Ok(Self::default()) };
        let loader = Loader::read(path, interpreter)?;
        Resolver::new(executable, image, loader, cache).run()
    }
}

#[cfg(test)]
mod tests;
