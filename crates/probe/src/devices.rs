//! The device nodes below `/dev`.

use crate::errno;
use serde::Serialize;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// A path below `/dev`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Entry {
    /// A device node.
    Node {
        path: String,
        kind: &'static str,
        major: u32,
        minor: u32,
        /// The permissions in octal, such as `0600`.
        mode: String,
        uid: u32,
        gid: u32,
    },
    /// A directory or node that cannot be inspected.
    Unknown { path: String, unknown: String },
}

impl Entry {
    fn path(&self) -> &str {
        match self {
            Self::Node { path, .. } | Self::Unknown { path, .. } => path,
        }
    }

    fn unknown(path: &Path, error: &io::Error) -> Self {
        Self::Unknown { path: path.display().to_string(), unknown: errno::name_of(error) }
    }
}

/// Lists the device nodes below `top`, sorted by path. The list is empty without `top`. Symbolic links are not
/// followed.
pub(crate) fn below(top: &Path) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut directories = vec![top.to_owned()];
    while let Some(directory) = directories.pop() {
        match children(&directory) {
            Ok(children) => {
                for child in children {
                    inspect(child, &mut directories, &mut found);
                }
            }
            // `top` does not exist, or the directory was removed concurrently.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => found.push(Entry::unknown(&directory, &error)),
        }
    }
    found.sort_by(|one, other| one.path().cmp(other.path()));
    found
}

fn children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect()
}

fn inspect(path: PathBuf, directories: &mut Vec<PathBuf>, found: &mut Vec<Entry>) {
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => directories.push(path),
        Ok(metadata) => found.extend(node(&path, &metadata)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => found.push(Entry::unknown(&path, &error)),
    }
}

fn node(path: &Path, metadata: &fs::Metadata) -> Option<Entry> {
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => "char",
        kind if kind.is_block_device() => "block",
        _ => return None,
    };
    Some(Entry::Node {
        path: path.display().to_string(),
        kind,
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        mode: format!("{:04o}", metadata.mode() & 0o7777),
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}
