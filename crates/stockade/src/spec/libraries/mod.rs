//! The closure of a dynamically linked executable: every file that its loader asks for in the jail.
//!
//! The libraries are found as glibc's loader finds them on the host: in `DT_RPATH` of whoever needs one and
//! of those who needed that, in `DT_RUNPATH` of whoever needs it, in `/etc/ld.so.cache`, and in the
//! directories that are built into the loader. Each is then placed where the loader will look *inside the
//! jail*, which is not always where it was on the host:
//!
//! * The executable is at `/NAME` there, and without `/proc` its loader cannot know that: directories that
//!   it gives relative to itself (`$ORIGIN`) are not searched. Those that a library gives relative to itself
//!   are.
//! * There is no `/etc/ld.so.cache`.
//!
//! So a library keeps its path if the loader in the jail looks there, and goes to the loader's first
//! built-in directory otherwise, under the name by which it is asked for. The loader itself keeps the path
//! that the executable names.
//!
//! What is not seen: what a program opens by itself while it runs (`dlopen`: plug-ins, name services,
//! character sets), and what is asked of the loader through the environment or `/etc/ld.so.preload`, since
//! a jail has neither. Directories for some processors only (`glibc-hwcaps`) are passed over: the variant
//! that every processor can run is taken. `$PLATFORM` is the machine's name. A library that is asked for by
//! two names, neither of them its own (`DT_SONAME`), becomes two libraries. Loaders of other C libraries
//! (musl) are refused.

mod elf;
mod error;
mod ld_cache;
mod loader;
mod resolve;
mod search_path;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use error::LibraryError;

use crate::spec::{ExecFile, HostPath, JailPath};
use elf::Content;
use loader::Loader;
use resolve::Walk;

/// Everything that an executable's loader asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Libraries {
    /// The loader first, then the libraries in the order in which they are loaded.
    pub files: Vec<Library>,
}

/// One file of a closure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Library {
    /// Where its content is on the host, all links resolved.
    pub source: HostPath,
    /// Where the loader asks for it in the jail.
    pub path: JailPath,
}

impl Libraries {
    /// What `executable` needs beside itself: nothing if it is linked statically, or is no program at all,
    /// which is for the kernel to refuse.
    ///
    /// # Errors
    /// What cannot be found or read, who needs it, and where it was looked for.
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
        // Without a loader nobody looks for libraries, whatever the file says of them.
        let Some(interpreter) = &image.interpreter else { return Ok(Self::default()) };
        let loader = Loader::read(path, interpreter)?;
        Walk::new(executable, image, loader, cache).run()
    }
}

#[cfg(test)]
mod tests;
