//! The mounts that are visible inside the jail.

use crate::errno;
use crate::known::Known;
use serde::Serialize;
use std::{fs, io};
use stockade_syscalls::mount_list;

/// One mount.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Mount {
    point: String,
    #[serde(rename = "type")]
    fs_type: String,
    /// `null` if the kernel does not return it (`listmount` before Linux 6.13).
    source: Option<String>,
}

/// Lists the mounts with `listmount`, or from `/proc` if the kernel lacks or refuses that call.
pub(crate) fn read() -> Known<Vec<Mount>> {
    match mount_list::mounts() {
        Ok(mounts) => Known::Fact(mounts.into_iter().map(Mount::from).collect()),
        Err(refused) => fs::read("/proc/self/mountinfo")
            .and_then(|text| parse(&String::from_utf8_lossy(&text)))
            .map_err(|error| {
                format!("listmount: {}, mountinfo: {}", errno::name_of(&refused), errno::name_of(&error))
            })
            .into(),
    }
}

impl From<mount_list::Mount> for Mount {
    fn from(mount: mount_list::Mount) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            point: text(&mount.point),
            fs_type: text(&mount.fs_type),
            source: mount.source.as_deref().map(text),
        }
    }
}

fn parse(mountinfo: &str) -> io::Result<Vec<Mount>> {
    mountinfo
        .lines()
        .map(|line| parse_line(line).ok_or_else(|| io::Error::other(format!("cannot read '{line}'"))))
        .collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    // The number of fields before the lone dash varies.
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    Some(Mount {
        point: unescape(before.split(' ').nth(4)?),
        fs_type: unescape(after.next()?),
        source: Some(unescape(after.next()?)),
    })
}

/// Decodes mountinfo's escapes: a backslash and three octal digits for blank, tab, newline and backslash.
fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(code) = code {
            plain.push(code.into());
            plain.push_str(&part[3..]);
        } else {
            plain.push('\\');
            plain.push_str(part);
        }
    }
    plain
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn mount(point: &str, fs_type: &str, source: &str) -> Mount {
        Mount { point: point.to_owned(), fs_type: fs_type.to_owned(), source: Some(source.to_owned()) }
    }

    #[test]
    fn mountinfo_is_parsed_with_and_without_optional_fields() {
        let text = "24 1 0:22 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw\n\
                    25 24 0:23 /sub /a\\040b ro - tmpfs no\\134ne rw,size=4k\n";
        let expected = [mount("/", "ext4", "/dev/vda"), mount("/a b", "tmpfs", "no\\ne")];
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn a_line_that_is_no_mount_is_an_error() {
        assert!(parse("24 1 0:22 / / rw,relatime shared:1\n").is_err());
    }
}
