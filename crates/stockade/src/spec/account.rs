//! Users and groups by number or name.
//!
//! The programs are static, so they cannot load the modules of glibc's name service. Names are those of `/etc/passwd` and
//! `/etc/group`.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{Owner, SpecError, errno};

/// The most bytes that are read of a file of names.
const MAX_BYTES: u64 = 16 << 20;

/// A kind of account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// A user, with a uid.
    User,
    /// A group, with a gid.
    Group,
}

impl Account {
    /// The file of the names.
    pub fn file(self) -> &'static Path {
        Path::new(match self {
            Self::User => "/etc/passwd",
            Self::Group => "/etc/group",
        })
    }

    /// The uid or gid for a number or a name.
    ///
    /// # Errors
    /// * [`SpecError::Uid`] or [`SpecError::Gid`] if the text is neither a valid number nor a possible name
    /// * [`SpecError::NoAccount`] if the file has no such name
    /// * [`SpecError::AccountFile`] if the file cannot be read, or is larger than 16 MiB
    pub fn parse(self, text: &str) -> Result<u32, SpecError> {
        if let Some(number) = Owner::parse_number(text) {
            return Ok(number);
        }
        let is_number = text.trim_start_matches(['-', '+']).bytes().all(|byte| byte.is_ascii_digit());
        if is_number || text.contains([':', '\n']) {
            return Err(match self {
                Self::User => SpecError::Uid(text.to_owned()),
                Self::Group => SpecError::Gid(text.to_owned()),
            });
        }
        let lines = read(self.file()).map_err(|cause| SpecError::AccountFile(self, cause))?;
        number_in(&lines, text).ok_or_else(|| SpecError::NoAccount(self, text.to_owned()))
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Group => "group",
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Errno> {
    // A FIFO in place of the file must not block.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|e| errno(&e))?;
    if !file.metadata().map_err(|e| errno(&e))?.is_file() {
        return Err(Errno::INVAL);
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| errno(&e))?;
    if bytes.len() as u64 > MAX_BYTES { Err(Errno::FBIG) } else { Ok(bytes) }
}

/// The third field of the first line with this name, as `getpwnam` finds it. Lines that are no entries are skipped.
fn number_in(lines: &[u8], name: &str) -> Option<u32> {
    lines.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        let named = fields.next()? == name.as_bytes();
        let number = std::str::from_utf8(fields.nth(1)?).ok()?;
        // The password, at least, is between the name and the number.
        named.then(|| Owner::parse_number(number))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_in_its_own_line() {
        let lines =
            b"root:x:0:0:root:/root:/bin/sh\n# nobody:x:1:1\nbroken\nnobody:x\nnobody:x:65534:65534:a:b:c\n\
                      nobody:x:7:7\nno:x:4294967295:\n\xff\xfe:x:5:\n:x:9:9\n+nis:::\nlast:*:12";
        for (name, number) in [
            ("root", Some(0)),
            ("nobody", Some(65534)),
            ("last", Some(12)),
            ("no", None),
            ("nob", None),
            ("x", None),
            ("+nis", None),
            ("broken", None),
        ] {
            assert_eq!(number_in(lines, name), number, "{name}");
        }
    }

    #[test]
    fn numbers_need_no_file() {
        assert_eq!(Account::User.parse("1234"), Ok(1234));
        for text in ["", "-1", "4294967295", "99999999999", "1000:1000", "a\nb"] {
            assert_eq!(Account::User.parse(text), Err(SpecError::Uid(text.to_owned())), "{text:?}");
            assert_eq!(Account::Group.parse(text), Err(SpecError::Gid(text.to_owned())), "{text:?}");
        }
    }

    #[test]
    fn root_has_its_numbers_and_an_unknown_name_none() {
        assert_eq!(Account::User.parse("root"), Ok(0));
        assert_eq!(Account::Group.parse("root"), Ok(0));
        let name = "stockade-no-such-name";
        for account in [Account::User, Account::Group] {
            assert_eq!(account.parse(name), Err(SpecError::NoAccount(account, name.to_owned())));
        }
    }

    #[test]
    fn something_else_in_place_of_the_file_is_an_error() {
        assert_eq!(read(Path::new("/dev/null")), Err(Errno::INVAL));
        assert_eq!(read(Path::new("/etc")), Err(Errno::INVAL));
        assert_eq!(read(Path::new("/no/such")), Err(Errno::NOENT));
        let sparse = std::env::temp_dir().join(format!("stockade-account-{}", std::process::id()));
        let file = std::fs::File::create(&sparse).expect("create a file");
        file.set_len(MAX_BYTES + 1).expect("set its length");
        let found = read(&sparse);
        std::fs::remove_file(&sparse).expect("remove the file");
        assert_eq!(found, Err(Errno::FBIG));
    }
}
