//! Where a loader looks for a library: on the host, and in the jail.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// What the names in braces or after a dollar sign stand for.
pub(super) struct Words<'a> {
    /// The directory of the file that speaks; `None` if the loader cannot know it.
    pub(super) origin: Option<&'a Path>,
    pub(super) lib: &'a OsStr,
    pub(super) platform: &'a str,
}

/// Replaces `$ORIGIN`, `$LIB` and `$PLATFORM`; `None` if one of them is not known.
pub(super) fn expand(text: &OsStr, words: &Words<'_>) -> Option<OsString> {
    let mut expanded = Vec::new();
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'$') {
        expanded.extend(&rest[..at]);
        rest = &rest[at + 1..];
        let Some((word, after)) = word(rest) else {
            expanded.push(b'$');
            continue;
        };
        match word {
            b"ORIGIN" => expanded.extend(words.origin?.as_os_str().as_bytes()),
            b"LIB" => expanded.extend(words.lib.as_bytes()),
            _ => expanded.extend(words.platform.as_bytes()),
        }
        rest = after;
    }
    expanded.extend(rest);
    Some(OsString::from_vec(expanded))
}

/// The word that a text begins with, in braces or not, and what comes after it.
fn word(text: &[u8]) -> Option<(&'static [u8], &[u8])> {
    [&b"ORIGIN"[..], b"LIB", b"PLATFORM"].into_iter().find_map(|word| {
        if let Some(after) = text.strip_prefix(b"{").and_then(|text| text.strip_prefix(word)) {
            return Some((word, after.strip_prefix(b"}")?));
        }
        let after = text.strip_prefix(word)?;
        // A longer name is another one.
        let goes_on = after.first().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        (!goes_on).then_some((word, after))
    })
}

/// An absolute directory in its plain form; `None` for one that depends on where the program is started,
/// which is the root in a jail and anywhere on the host.
pub(super) fn directory(text: &OsStr) -> Option<PathBuf> {
    let path = Path::new(text);
    // Collected anew it has no doubled slashes and none at its end.
    path.is_absolute().then(|| path.components().collect())
}

/// Whether a directory can be made in a jail as it is: a step back would need what it steps back from.
pub(super) fn is_plain(directory: &Path) -> bool {
    directory.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str, origin: Option<&str>) -> Option<String> {
        let words = Words { origin: origin.map(Path::new), lib: OsStr::new("lib64"), platform: "x86_64" };
        expand(OsStr::new(text), &words).and_then(|text| text.into_string().ok())
    }

    #[test]
    fn words_are_replaced_with_and_without_braces() {
        let cases = [
            ("$ORIGIN/../lib", "/opt/bin/../lib"),
            ("${ORIGIN}x/$LIB/${PLATFORM}", "/opt/binx/lib64/x86_64"),
            ("/a/$ORIGINAL/${LIB", "/a/$ORIGINAL/${LIB"),
            ("/plain/$", "/plain/$"),
        ];
        for (text, wanted) in cases {
            assert_eq!(expanded(text, Some("/opt/bin")).as_deref(), Some(wanted), "{text}");
        }
    }

    #[test]
    fn what_stands_on_an_unknown_origin_is_unknown() {
        assert_eq!(expanded("$ORIGIN/lib", None), None);
        assert_eq!(expanded("/$LIB", None).as_deref(), Some("/lib64"));
    }

    #[test]
    fn directories_are_absolute_and_compared_in_one_form() {
        assert_eq!(directory(OsStr::new("/opt//lib/./")), Some(PathBuf::from("/opt/lib")));
        assert_eq!(directory(OsStr::new("")), None);
        assert_eq!(directory(OsStr::new("lib")), None);
        assert!(is_plain(Path::new("/opt/lib")) && !is_plain(Path::new("/opt/bin/../lib")));
    }
}
