//! Files with special mode bits, file capabilities and access control lists, and the attributes of their copies.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{XattrFlags, listxattr, setxattr};

/// A privilege of an executable that its copy in a jail must not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// Mode 4755.
    SetUid,
    /// Mode 2755.
    SetGid,
    /// `CAP_DAC_OVERRIDE`, effective.
    Capabilities,
}

impl Privilege {
    /// All privileges.
    pub const ALL: [Self; 3] = [Self::SetUid, Self::SetGid, Self::Capabilities];

    /// Gives a file the privilege.
    ///
    /// # Panics
    /// Panics if that fails.
    pub fn give_to(self, file: &Path) {
        match self {
            Self::SetUid => set_mode(file, 0o4755),
            Self::SetGid => set_mode(file, 0o2755),
            Self::Capabilities => {
                set_mode(file, 0o755);
                give_capability(file);
            }
        }
    }

    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::SetUid => "set-uid",
            Self::SetGid => "set-gid",
            Self::Capabilities => "capabilities",
        }
    }

    /// Its name in messages.
    pub fn text(self) -> &'static str {
        match self {
            Self::SetUid => "set-uid bit",
            Self::SetGid => "set-gid bit",
            Self::Capabilities => "file capabilities",
        }
    }
}

/// Sets the mode of a file or directory, with special mode bits.
///
/// # Panics
/// Panics if that fails.
pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("set a mode for the test");
}

/// Gives a file `CAP_DAC_OVERRIDE` (number 1), permitted and effective, as `setcap` does.
///
/// # Panics
/// Panics if the file system does not support the attribute.
pub fn give_capability(file: &Path) {
    const VERSION_2_EFFECTIVE: u32 = 0x0200_0001;
    let fields = [VERSION_2_EFFECTIVE, 1 << 1, 0, 0, 0];
    set_attribute(file, "security.capability", &fields.map(u32::to_le_bytes).concat());
}

/// Gives a file an access control list that lets uid 1 read and write it.
///
/// # Panics
/// Panics if the file system does not support the attribute.
pub fn give_access_list(file: &Path) {
    const NO_ID: u32 = u32::MAX;
    // Tag, permissions, id: the owner, uid 1, the group, the mask, others.
    let entries = [(1, 6, NO_ID), (2, 6, 1), (4, 4, NO_ID), (16, 6, NO_ID), (32, 4, NO_ID)];
    let entry = |(tag, permissions, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
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
/// Panics if the file is missing.
pub fn attributes(file: &Path) -> Vec<String> {
    let mut names = [0_u8; 1024];
    let length = listxattr(file, &mut names[..]).expect("list extended attributes");
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}
