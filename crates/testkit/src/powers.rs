//! Files with set-uid bits, capabilities and access control lists, and what is left of these in a copy.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{XattrFlags, listxattr, setxattr};

/// What an executable can have that its copy in a jail must not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Powerful {
    /// Mode 4755.
    SetUid,
    /// Mode 2755.
    SetGid,
    /// `CAP_DAC_OVERRIDE`, effective.
    Capability,
}

impl Powerful {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::SetUid, Self::SetGid, Self::Capability];

    /// Gives it to a file.
    ///
    /// # Panics
    /// If that cannot be.
    pub fn give_to(self, file: &Path) {
        match self {
            Self::SetUid => set_mode(file, 0o4755),
            Self::SetGid => set_mode(file, 0o2755),
            Self::Capability => {
                set_mode(file, 0o755);
                give_capability(file);
            }
        }
    }

    /// As a program reads it in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::SetUid => "set-uid",
            Self::SetGid => "set-gid",
            Self::Capability => "capabilities",
        }
    }

    /// As a person reads it.
    pub fn words(self) -> &'static str {
        match self {
            Self::SetUid => "set-uid bit",
            Self::SetGid => "set-gid bit",
            Self::Capability => "file capabilities",
        }
    }
}

/// Sets the mode of a file or directory, set-uid bits and all.
///
/// # Panics
/// If that cannot be.
pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("set a mode for the test");
}

/// Gives a file `CAP_DAC_OVERRIDE` (number 1), permitted and effective, as `setcap` does.
///
/// # Panics
/// If its filesystem has no such attributes.
pub fn give_capability(file: &Path) {
    const VERSION_2_EFFECTIVE: u32 = 0x0200_0001;
    let words = [VERSION_2_EFFECTIVE, 1 << 1, 0, 0, 0];
    set_attribute(file, "security.capability", &words.map(u32::to_le_bytes).concat());
}

/// Lets uid 1 read and write a file: an access control list of version 2.
///
/// # Panics
/// If its filesystem has no such attributes.
pub fn give_access_list(file: &Path) {
    const NOBODY: u32 = u32::MAX;
    // Tag, permissions, who: the owner, uid 1, the group, the mask, everybody else.
    let entries = [(1, 6, NOBODY), (2, 6, 1), (4, 4, NOBODY), (16, 6, NOBODY), (32, 4, NOBODY)];
    let entry = |(tag, permissions, who): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &who.to_le_bytes()].concat()
    };
    let entries: Vec<u8> = entries.into_iter().flat_map(entry).collect();
    set_attribute(file, "system.posix_acl_access", &[&2_u32.to_le_bytes()[..], &entries].concat());
}

fn set_attribute(file: &Path, name: &str, value: &[u8]) {
    setxattr(file, name, value, XattrFlags::empty()).expect("set an extended attribute for the test");
}

/// The names of a file's extended attributes.
///
/// # Panics
/// If it is not there.
pub fn attributes(file: &Path) -> Vec<String> {
    let mut names = [0_u8; 1024];
    let length = listxattr(file, &mut names[..]).expect("list extended attributes");
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}
