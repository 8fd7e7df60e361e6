//! The search for all libraries of an executable, breadth first as in the dynamic loader.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::elf::{self, Image, Kind};
use super::ld_cache::Cache;
use super::loader::Loader;
use super::search_path::{Tokens, directory, expand, is_plain};
use super::{Libraries, Library, LibraryError};
use crate::spec::{ExecFile, HostPath, JailPath, SpecError};

pub(super) struct Resolver {
    loader: Loader,
    cache: Cache,
    cache_path: PathBuf,
    /// The loaded objects: the executable, then the libraries.
    objects: Vec<Object>,
    /// The names of loaded libraries, which are not loaded again.
    known: HashSet<OsString>,
    files: Vec<Library>,
}

/// The loaded executable, or a loaded library.
struct Object {
    image: Image,
    /// Its path on the host, as the dynamic loader found it.
    host: PathBuf,
    /// Its path in the jail. `None` for the executable, whose path the dynamic loader does not know there.
    jail: Option<PathBuf>,
    /// The index of the first object that needs it.
    needed_by: Option<usize>,
}

/// The dynamic loader that searches: the host's, or the one in the jail.
#[derive(Clone, Copy)]
enum Side {
    Host,
    Jail,
}

impl Object {
    fn origin(&self, side: Side) -> Option<&Path> {
        match side {
            Side::Host => self.host.parent(),
            Side::Jail => self.jail.as_deref().and_then(Path::parent),
        }
    }
}

impl Resolver {
    pub(super) fn new(executable: &ExecFile, image: Image, loader: Loader, cache: &Path) -> Self {
        let host = executable.path().as_path().to_owned();
        Self {
            known: loader.names.iter().cloned().collect(),
            loader,
            cache: Cache::read(cache),
            cache_path: cache.to_owned(),
            objects: vec![Object { image, host, jail: None, needed_by: None }],
            files: Vec::new(),
        }
    }

    pub(super) fn run(mut self) -> Result<Libraries, LibraryError> {
        let path = JailPath::new(&self.loader.path).map_err(|_| LibraryError::NoLoader {
            path: self.objects[0].host.clone(),
            loader: self.loader.path.clone(),
        })?;
        self.files.push(Library { source: self.loader.source.clone(), path });
        let mut next = 0;
        while next < self.objects.len() {
            for name in self.objects[next].image.needed.clone() {
                if self.known.insert(name.clone()) {
                    self.load(&name, next)?;
                }
            }
            next += 1;
        }
        Ok(Libraries { files: self.files })
    }

    fn load(&mut self, name: &OsStr, needed_by: usize) -> Result<(), LibraryError> {
        let (host, image) = self.find(name, needed_by)?;
        let (jail, path) = self.place(name, &host, needed_by)?;
        let source = HostPath::existing(&host).map_err(|error| match error {
            SpecError::NotFound(path, cause) => LibraryError::Read { path, cause },
            // The path was just read, so no other error is possible.
            _ => LibraryError::Read { path: host.clone(), cause: rustix::io::Errno::NOENT },
        })?;
        self.files.push(Library { source, path });
        self.known.extend(image.soname.clone());
        self.objects.push(Object { image, host, jail: Some(jail), needed_by: Some(needed_by) });
        Ok(())
    }

    /// The file that the host's dynamic loader loads.
    fn find(&self, name: &OsStr, needed_by: usize) -> Result<(PathBuf, Image), LibraryError> {
        let kind = self.objects[0].image.kind;
        let mut searched = Vec::new();
        for location in self.locations(name, needed_by) {
            let (searched_path, candidates) = match location {
                Location::File(path) => (path.clone(), vec![path]),
                Location::Directory(directory) => (directory.clone(), vec![directory.join(name)]),
                Location::Cache(files) => (self.cache_path.clone(), files),
            };
            for candidate in candidates {
                if let Some(image) = elf::read_library(&candidate, kind)? {
                    return Ok((candidate, image));
                }
            }
            if !searched.contains(&searched_path) {
                searched.push(searched_path);
            }
        }
        let needed_by = self.objects[needed_by].host.clone();
        Err(LibraryError::NoLibrary { library: name.to_owned(), needed_by, searched })
    }

    /// The locations that the host's dynamic loader searches, in order.
    fn locations(&self, name: &OsStr, needed_by: usize) -> Vec<Location> {
        if is_path(name) {
            return self.path(name, needed_by, Side::Host).map(Location::File).into_iter().collect();
        }
        let defaults = self.defaults(needed_by);
        let given = self.given(needed_by, Side::Host);
        // Without the built-in directories the cache's entries for them do not count either.
        let cached = self.cache.find(name).filter(|path| {
            !defaults.is_empty() || path.parent().is_none_or(|parent| !self.is_default(parent))
        });
        let cached = Location::Cache(cached.collect());
        let given = given.into_iter().map(Location::Directory);
        given.chain([cached]).chain(defaults.iter().cloned().map(Location::Directory)).collect()
    }

    /// A path in the jail at which the dynamic loader there finds the library.
    fn place(
        &self,
        name: &OsStr,
        host: &Path,
        needed_by: usize,
    ) -> Result<(PathBuf, JailPath), LibraryError> {
        let mut searched = Vec::new();
        let jail = if is_path(name) {
            self.path(name, needed_by, Side::Jail)
        } else {
            searched.extend(self.given(needed_by, Side::Jail));
            searched.extend_from_slice(self.defaults(needed_by));
            searched.retain(|directory| is_plain(directory));
            let same = searched.iter().find(|directory| host.parent() == Some(directory));
            let built_in = || searched.iter().find(|directory| self.is_default(directory));
            same.or_else(built_in).or(searched.first()).map(|directory| directory.join(name))
        };
        let placed = jail.and_then(|jail| JailPath::new(&jail).ok().map(|path| (jail, path)));
        placed.ok_or_else(|| LibraryError::NoPath {
            library: name.to_owned(),
            found: host.to_owned(),
            needed_by: self.objects[needed_by].host.clone(),
            searched,
        })
    }

    /// The directories that the files themselves give for the libraries of `needed_by`.
    fn given(&self, needed_by: usize, side: Side) -> Vec<PathBuf> {
        let object = &self.objects[needed_by];
        if let Some(runpath) = &object.image.runpath {
            return self.expand_all(runpath, object, side).collect();
        }
        // DT_RPATH of every object on the way to the executable, the executable's last.
        let chain =
            std::iter::successors(Some(object), |object| object.needed_by.map(|index| &self.objects[index]));
        chain.flat_map(|object| self.expand_all(&object.image.rpath, object, side)).collect()
    }

    fn expand_all<'a>(
        &'a self,
        list: &'a [OsString],
        object: &'a Object,
        side: Side,
    ) -> impl Iterator<Item = PathBuf> {
        list.iter().filter_map(move |text| directory(&expand(text, &self.tokens(object, side))?))
    }

    /// The path of a library that is needed by its path instead of a name.
    fn path(&self, name: &OsStr, needed_by: usize, side: Side) -> Option<PathBuf> {
        directory(&expand(name, &self.tokens(&self.objects[needed_by], side))?)
    }

    fn tokens<'a>(&'a self, object: &'a Object, side: Side) -> Tokens<'a> {
        let platform = platform(self.objects[0].image.kind);
        Tokens { origin: object.origin(side), lib: &self.loader.lib, platform }
    }

    fn defaults(&self, needed_by: usize) -> &[PathBuf] {
        if self.objects[needed_by].image.no_defaults { &[] } else { &self.loader.directories }
    }

    fn is_default(&self, directory: &Path) -> bool {
        self.loader.directories.iter().any(|known| known == directory)
    }
}

/// One location that the dynamic loader searches.
enum Location {
    File(PathBuf),
    Directory(PathBuf),
    /// The files that the cache names.
    Cache(Vec<PathBuf>),
}

fn is_path(name: &OsStr) -> bool {
    name.as_bytes().contains(&b'/')
}

/// The machine's name in the kernel (`AT_PLATFORM`).
fn platform(kind: Kind) -> &'static str {
    match object::elf::Machine(kind.machine) {
        object::elf::EM_X86_64 => "x86_64",
        object::elf::EM_386 => "i686",
        object::elf::EM_AARCH64 => "aarch64",
        _ => std::env::consts::ARCH,
    }
}
