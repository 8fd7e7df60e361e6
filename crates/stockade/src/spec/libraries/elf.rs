//! The properties of an ELF file and the libraries that it needs.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::read::{Error as ObjectError, StringTable};
use object::{Endianness, ReadCache, ReadRef};

use super::LibraryError;
use crate::spec::errno;

/// The length of a script's first line that the kernel reads, in bytes.
pub(super) const LONGEST_LINE: u64 = 256;

/// The longest path of a dynamic loader, in bytes.
const LONGEST_PATH: u64 = 4096;

/// The kind of a file.
pub(super) enum Content {
    Elf(Image),
    /// A script with its interpreter.
    Script(PathBuf),
    Other,
}

/// An executable or library.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) kind: Kind,
    pub(super) interpreter: Option<PathBuf>,
    /// `DT_NEEDED`: the names of the libraries that it needs, in order.
    pub(super) needed: Vec<OsString>,
    /// `DT_SONAME`: its own name.
    pub(super) soname: Option<OsString>,
    /// `DT_RPATH`: directories searched for its libraries, and for theirs.
    pub(super) rpath: Vec<OsString>,
    /// `DT_RUNPATH`: directories searched for its libraries alone. An empty entry is not the same as `None`.
    pub(super) runpath: Option<Vec<OsString>>,
    /// `DF_1_NODEFLIB`: the built-in directories of the dynamic loader are not searched.
    pub(super) no_defaults: bool,
}

/// The properties that a library shares with the executable: class, byte order and machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) class: u8,
    pub(super) order: u8,
    pub(super) machine: u16,
}

pub(super) fn read(path: &Path) -> Result<Content, LibraryError> {
    let failed = |e: &std::io::Error| LibraryError::Read { path: path.to_owned(), cause: errno(e) };
    // The executable decides which paths are opened, and opening a device or a pipe may have an effect.
    if !std::fs::metadata(path).map_err(|e| failed(&e))?.is_file() {
        return Ok(Content::Other);
    }
    let mut file = File::open(path).map_err(|e| failed(&e))?;
    let mut beginning = Vec::new();
    file.by_ref().take(LONGEST_LINE).read_to_end(&mut beginning).map_err(|e| failed(&e))?;
    if let Some(line) = beginning.strip_prefix(b"#!") {
        return Ok(Content::Script(interpreter_of(line)));
    }
    if !beginning.starts_with(&elf::ELFMAG) {
        return Ok(Content::Other);
    }
    let data = ReadCache::new(file);
    let image = match beginning.get(4) {
        Some(&class) if class == elf::ELFCLASS32.0 => image::<FileHeader32<Endianness>, _>(&data),
        _ => image::<FileHeader64<Endianness>, _>(&data),
    };
    image
        .map(Content::Elf)
        .map_err(|Problem(problem)| LibraryError::Corrupt { path: path.to_owned(), problem })
}

/// Reads a library. A missing file, a file that is no library, and one for another kind of machine are skipped, as in
/// the dynamic loader.
pub(super) fn read_library(path: &Path, kind: Kind) -> Result<Option<Image>, LibraryError> {
    match read(path) {
        Ok(Content::Elf(image)) if image.kind == kind => Ok(Some(image)),
        Ok(_) => Ok(None),
        Err(LibraryError::Read { cause, .. }) if is_absence(cause) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_absence(cause: rustix::io::Errno) -> bool {
    let kind = std::io::Error::from(cause).kind();
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory)
}

/// The interpreter in the first line of a script.
pub(super) fn interpreter_of(line: &[u8]) -> PathBuf {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut parts = line.split(|byte| matches!(byte, b' ' | b'\t' | b'\r')).filter(|part| !part.is_empty());
    PathBuf::from(OsStr::from_bytes(parts.next().unwrap_or_default()))
}

/// The dynamic loader of an ELF executable; `None` if it has none, or is no ELF file.
pub(super) fn loader_of(file: File, beginning: &[u8]) -> Option<PathBuf> {
    let data = ReadCache::new(file);
    let loader = match beginning.get(4) {
        Some(&class) if class == elf::ELFCLASS32.0 => loader::<FileHeader32<Endianness>, _>(&data),
        _ => loader::<FileHeader64<Endianness>, _>(&data),
    };
    loader.ok()?
}

fn loader<'data, Elf, R>(data: R) -> Result<Option<PathBuf>, ObjectError>
where
    Elf: FileHeader<Endian = Endianness>,
    R: ReadRef<'data>,
{
    let header = Elf::parse(data)?;
    let endian = header.endian()?;
    // The kernel refuses other files too. Their numbers could ask for any amount of memory.
    if header.e_phnum(endian) == elf::PN_XNUM {
        return Ok(None);
    }
    for segment in header.program_headers(endian, data)? {
        let size: u64 = segment.p_filesz(endian).into();
        if size > LONGEST_PATH {
            continue;
        }
        if let Some(path) = segment.interpreter(endian, data)? {
            return Ok(Some(PathBuf::from(OsStr::from_bytes(path))));
        }
    }
    Ok(None)
}

/// The problem of a corrupt ELF file.
struct Problem(String);

impl From<ObjectError> for Problem {
    fn from(error: ObjectError) -> Self {
        Self(error.to_string())
    }
}

fn image<'data, Elf, R>(data: R) -> Result<Image, Problem>
where
    Elf: FileHeader<Endian = Endianness>,
    R: ReadRef<'data>,
{
    let header = Elf::parse(data)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, data)?;
    let ident = header.e_ident();
    let kind = Kind { class: ident.class.0, order: ident.data.0, machine: header.e_machine(endian).0 };
    let mut image = Image {
        kind,
        interpreter: None,
        needed: Vec::new(),
        soname: None,
        rpath: Vec::new(),
        runpath: None,
        no_defaults: false,
    };
    for segment in segments {
        if let Some(path) = segment.interpreter(endian, data)? {
            image.interpreter = Some(PathBuf::from(OsStr::from_bytes(path)));
        }
        if let Some(entries) = segment.dynamic(endian, data)? {
            dynamic::<Elf, R>(&mut image, entries, segments, endian, data)?;
        }
    }
    Ok(image)
}

fn dynamic<'data, Elf, R>(
    image: &mut Image,
    entries: &[Elf::Dyn],
    segments: &[Elf::ProgramHeader],
    endian: Endianness,
    data: R,
) -> Result<(), Problem>
where
    Elf: FileHeader<Endian = Endianness>,
    R: ReadRef<'data>,
{
    let entries: Vec<(_, u64)> = entries
        .iter()
        .map(|entry| (entry.d_tag(endian), entry.d_val(endian).into()))
        .take_while(|(tag, _)| *tag != elf::DT_NULL)
        .collect();
    let value = |wanted| entries.iter().find(|(tag, _)| *tag == wanted).map(|(_, value)| *value);
    // The string table is given by its address. Its offset in the file follows from the segment loaded there.
    let start = value(elf::DT_STRTAB).and_then(|address| {
        let loaded = segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD);
        loaded.into_iter().find_map(|segment| {
            let (offset, size) = segment.file_range(endian);
            let below = address.checked_sub(segment.p_vaddr(endian).into())?;
            (below < size).then(|| offset.checked_add(below)).flatten()
        })
    });
    let size = value(elf::DT_STRSZ).unwrap_or_default();
    let strings = start.map(|start| StringTable::new(data, start, start.saturating_add(size)));
    let text = |offset: u64| {
        let found = u32::try_from(offset).ok().and_then(|offset| strings?.get(offset).ok());
        let found =
            found.ok_or_else(|| Problem(format!("it has no text at {offset} of its dynamic table")))?;
        Ok::<_, Problem>(OsString::from_vec(found.to_vec()))
    };
    for (tag, value) in &entries {
        match *tag {
            elf::DT_NEEDED => image.needed.push(text(*value)?),
            elf::DT_SONAME => image.soname = Some(text(*value)?),
            elf::DT_RPATH => image.rpath = split(&text(*value)?),
            elf::DT_RUNPATH => image.runpath = Some(split(&text(*value)?)),
            elf::DT_FLAGS_1 => image.no_defaults = value & elf::DF_1_NODEFLIB.0 != 0,
            _ => (),
        }
    }
    if image.runpath.is_some() {
        // DT_RPATH, the older entry, counts only without DT_RUNPATH.
        image.rpath.clear();
    }
    Ok(())
}

fn split(list: &OsStr) -> Vec<OsString> {
    list.as_bytes().split(|byte| *byte == b':').map(|part| OsString::from_vec(part.to_vec())).collect()
}
