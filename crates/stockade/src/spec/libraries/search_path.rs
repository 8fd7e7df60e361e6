//! Search paths of the dynamic loader, with their tokens.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// The values of `$ORIGIN`, `$LIB` and `$PLATFORM`.
pub(super) struct Tokens<'a> {
    /// The directory of the file with the search path; `None` if the dynamic loader cannot know it.
    pub(super) origin: Option<&'a Path>,
    pub(super) lib: &'a OsStr,
    pub(super) platform: &'a str,
}

/// Replaces the tokens in a text; `None` if the value of one is unknown.
pub(super) fn expand(text: &OsStr, tokens: &Tokens<'_>) -> Option<OsString> {
    let mut expanded = Vec::new();
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'$') {
        expanded.extend(&rest[..at]);
        rest = &rest[at + 1..];
        let Some((token, after)) = token(rest) else {
            expanded.push(b'$');
            continue;
        };
        match token {
            b"ORIGIN" => expanded.extend(tokens.origin?.as_os_str().as_bytes()),
            b"LIB" => expanded.extend(tokens.lib.as_bytes()),
            _ => expanded.extend(tokens.platform.as_bytes()),
        }
        rest = after;
    }
    expanded.extend(rest);
    Some(OsString::from_vec(expanded))
}

/// The token at the beginning of a text, with or without braces, and the rest.
fn token(text: &[u8]) -> Option<(&'static [u8], &[u8])> {
    [&b"ORIGIN"[..], b"LIB", b"PLATFORM"].into_iter().find_map(|token| {
        if let Some(after) = text.strip_prefix(b"{").and_then(|text| text.strip_prefix(token)) {
            return Some((token, after.strip_prefix(b"}")?));
        }
        let after = text.strip_prefix(token)?;
        // A longer name is not the token.
        let is_longer = after.first().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        (!is_longer).then_some((token, after))
    })
}

/// An absolute directory in its plain form. `None` for a relative one, which depends on the working directory: the root
/// in a jail, any directory on the host.
pub(super) fn directory(text: &OsStr) -> Option<PathBuf> {
    let path = Path::new(text);
    // Collecting the components removes doubled and final slashes.
    path.is_absolute().then(|| path.components().collect())
}

/// Whether a directory can be created in a jail under this path. With `..` the directory before it would be needed too.
pub(super) fn is_plain(directory: &Path) -> bool {
    directory.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str, origin: Option<&str>) -> Option<String> {
        let tokens = Tokens { origin: origin.map(Path::new), lib: OsStr::new("lib64"), platform: "x86_64" };
        expand(OsStr::new(text), &tokens).and_then(|text| text.into_string().ok())
    }

    #[test]
    fn tokens_are_replaced_with_and_without_braces() {
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
    fn a_path_with_an_unknown_origin_is_unknown() {
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
