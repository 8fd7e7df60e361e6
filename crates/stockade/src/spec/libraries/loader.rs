//! The dynamic loader and its built-in directories.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::LibraryError;
use super::elf::{self, Content};
use crate::spec::{HostPath, SpecError, errno};

/// The dynamic loader that an executable names.
#[derive(Debug)]
pub(super) struct Loader {
    /// Its path as the executable gives it, which is also its path in the jail.
    pub(super) path: PathBuf,
    /// Its file on the host, with all symbolic links resolved.
    pub(super) source: HostPath,
    /// The names under which libraries need it.
    pub(super) names: Vec<OsString>,
    /// Its built-in directories.
    pub(super) directories: Vec<PathBuf>,
    /// The value of `$LIB`.
    pub(super) lib: OsString,
}

impl Loader {
    pub(super) fn read(executable: &Path, path: &Path) -> Result<Self, LibraryError> {
        let missing = || LibraryError::NoLoader { path: executable.to_owned(), loader: path.to_owned() };
        let unknown = || LibraryError::UnknownLoader { path: executable.to_owned(), loader: path.to_owned() };
        let source = HostPath::existing(path).map_err(|error| match error {
            SpecError::NotFound(path, cause) if cause != rustix::io::Errno::NOENT => {
                LibraryError::Read { path, cause }
            }
            _ => missing(),
        })?;
        let Content::Elf(image) = elf::read(source.as_path())? else { return Err(unknown()) };
        let bytes = std::fs::read(source.as_path())
            .map_err(|e| LibraryError::Read { path: path.to_owned(), cause: errno(&e) })?;
        let directories = built_in(&bytes);
        let lib = directories.first().map(|first| lib_of(first)).ok_or_else(unknown)?;
        let names = [path.file_name().map(OsStr::to_owned), image.soname].into_iter().flatten().collect();
        Ok(Self { path: path.to_owned(), source, names, directories, lib })
    }
}

/// The directories that are built into glibc's dynamic loader.
///
/// The file contains them one after the other, each with a slash and a NUL at its end. They differ between
/// distributions and machines, and only the dynamic loader itself contains them.
fn built_in(bytes: &[u8]) -> Vec<PathBuf> {
    let mut run = Vec::new();
    for text in bytes.split(|byte| *byte == 0) {
        // Before the first NUL, only the end of the text can be a path.
        let start = text.iter().rposition(|byte| !(b' '..=b'~').contains(byte)).map_or(0, |at| at + 1);
        let text = &text[start..];
        let is_directory = text.len() > 1 && text.starts_with(b"/") && text.ends_with(b"/");
        if is_directory && text.windows(3).any(|part| part == b"lib") {
            run.push(PathBuf::from(OsStr::from_bytes(&text[..text.len() - 1])));
        } else if !run.is_empty() {
            break;
        }
    }
    run
}

/// The value of `$LIB`: the first built-in directory without its prefix, as `lib64` or `lib/x86_64-linux-gnu`.
fn lib_of(first: &Path) -> OsString {
    match first.strip_prefix("/usr").or_else(|_| first.strip_prefix("/")) {
        Ok(below) if below.starts_with("lib") || below.starts_with("lib64") => below.into(),
        _ => first.file_name().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_directories_are_the_first_run_of_paths_with_slash() {
        let bytes = b"\x7fELF\0/proc/self/\0text\0\x01\x02/lib64/\0/usr/lib64/\0more\0/lib/other/\0";
        assert_eq!(built_in(bytes), ["/lib64", "/usr/lib64"].map(PathBuf::from));
        assert_eq!(built_in(b"\x7fELF\0/lib:/usr/local/lib:/usr/lib\0"), Vec::<PathBuf>::new());
    }

    #[test]
    fn lib_is_the_name_that_the_distribution_uses() {
        for (first, lib) in [
            ("/lib64", "lib64"),
            ("/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"),
            ("/usr/lib", "lib"),
            ("/nix/store/0123-glibc/lib", "lib"),
        ] {
            assert_eq!(lib_of(Path::new(first)), lib, "{first}");
        }
    }
}
