//! From the executable to everything it needs, breadth first, as the loader goes.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::elf::{self, Image, Kind};
use super::ld_cache::Cache;
use super::loader::Loader;
use super::search_path::{Words, directory, expand, is_plain};
use super::{Libraries, Library, LibraryError};
use crate::spec::{ExecFile, HostPath, JailPath, SpecError};

pub(super) struct Walk {
    loader: Loader,
    cache: Cache,
    cache_path: PathBuf,
    /// What is loaded so far: the executable, then the libraries.
    objects: Vec<Object>,
    /// The names by which it is known: who asks for one of them gets no second file.
    known: HashSet<OsString>,
    files: Vec<Library>,
}

/// The executable or a library, loaded.
struct Object {
    image: Image,
    /// Its path on the host, as the loader found it.
    host: PathBuf,
    /// Its path in the jail; `None` for the executable, whose own path its loader does not know there.
    jail: Option<PathBuf>,
    /// Who asked for it first.
    asked_by: Option<usize>,
}

/// Which loader looks: the host's, or the one in the jail.
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

impl Walk {
    pub(super) fn new(executable: &ExecFile, image: Image, loader: Loader, cache: &Path) -> Self {
        let host = executable.path().as_path().to_owned();
        Self {
            known: loader.names.iter().cloned().collect(),
            loader,
            cache: Cache::read(cache),
            cache_path: cache.to_owned(),
            objects: vec![Object { image, host, jail: None, asked_by: None }],
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

    fn load(&mut self, name: &OsStr, asked_by: usize) -> Result<(), LibraryError> {
        let (host, image) = self.find(name, asked_by)?;
        let (jail, path) = self.place(name, &host, asked_by)?;
        let source = HostPath::existing(&host).map_err(|error| match error {
            SpecError::NotFound(path, cause) => LibraryError::Read { path, cause },
            // Nothing else can be wrong with a path that was just read.
            _ => LibraryError::Read { path: host.clone(), cause: rustix::io::Errno::NOENT },
        })?;
        self.files.push(Library { source, path });
        self.known.extend(image.soname.clone());
        self.objects.push(Object { image, host, jail: Some(jail), asked_by: Some(asked_by) });
        Ok(())
    }

    /// The file that the host's loader takes.
    fn find(&self, name: &OsStr, asked_by: usize) -> Result<(PathBuf, Image), LibraryError> {
        let kind = self.objects[0].image.kind;
        let mut searched = Vec::new();
        for place in self.places(name, asked_by) {
            let (looked_in, candidates) = match place {
                Place::File(path) => (path.clone(), vec![path]),
                Place::Directory(directory) => (directory.clone(), vec![directory.join(name)]),
                Place::Cache(files) => (self.cache_path.clone(), files),
            };
            for candidate in candidates {
                if let Some(image) = elf::read_library(&candidate, kind)? {
                    return Ok((candidate, image));
                }
            }
            if !searched.contains(&looked_in) {
                searched.push(looked_in);
            }
        }
        let needed_by = self.objects[asked_by].host.clone();
        Err(LibraryError::NoLibrary { library: name.to_owned(), needed_by, searched })
    }

    /// Where the host's loader looks, in order.
    fn places(&self, name: &OsStr, asked_by: usize) -> Vec<Place> {
        if is_path(name) {
            return self.path(name, asked_by, Side::Host).map(Place::File).into_iter().collect();
        }
        let defaults = self.defaults(asked_by);
        let given = self.given(asked_by, Side::Host);
        // Where the built-in directories do not count, neither does what the cache knows of them.
        let cached = self.cache.find(name).filter(|path| {
            !defaults.is_empty() || path.parent().is_none_or(|parent| !self.is_default(parent))
        });
        let cached = Place::Cache(cached.collect());
        let given = given.into_iter().map(Place::Directory);
        given.chain([cached]).chain(defaults.iter().cloned().map(Place::Directory)).collect()
    }

    /// Where the library goes, so that the loader in the jail finds it.
    fn place(&self, name: &OsStr, host: &Path, asked_by: usize) -> Result<(PathBuf, JailPath), LibraryError> {
        let mut searched = Vec::new();
        let jail = if is_path(name) {
            self.path(name, asked_by, Side::Jail)
        } else {
            searched.extend(self.given(asked_by, Side::Jail));
            searched.extend_from_slice(self.defaults(asked_by));
            searched.retain(|directory| is_plain(directory));
            let same = searched.iter().find(|directory| host.parent() == Some(directory));
            let built_in = || searched.iter().find(|directory| self.is_default(directory));
            same.or_else(built_in).or(searched.first()).map(|directory| directory.join(name))
        };
        let placed = jail.and_then(|jail| JailPath::new(&jail).ok().map(|path| (jail, path)));
        placed.ok_or_else(|| LibraryError::NoPlace {
            library: name.to_owned(),
            found: host.to_owned(),
            needed_by: self.objects[asked_by].host.clone(),
            searched,
        })
    }

    /// The directories that the files themselves give for what `asked_by` needs.
    fn given(&self, asked_by: usize, side: Side) -> Vec<PathBuf> {
        let asking = &self.objects[asked_by];
        if let Some(runpath) = &asking.image.runpath {
            return self.expand_all(runpath, asking, side).collect();
        }
        // Those of everyone on the way to the executable, its own last.
        let chain =
            std::iter::successors(Some(asking), |object| object.asked_by.map(|index| &self.objects[index]));
        chain.flat_map(|object| self.expand_all(&object.image.rpath, object, side)).collect()
    }

    fn expand_all<'a>(
        &'a self,
        list: &'a [OsString],
        speaker: &'a Object,
        side: Side,
    ) -> impl Iterator<Item = PathBuf> {
        list.iter().filter_map(move |text| directory(&expand(text, &self.words(speaker, side))?))
    }

    /// A library that is asked for by a path instead of a name.
    fn path(&self, name: &OsStr, asked_by: usize, side: Side) -> Option<PathBuf> {
        directory(&expand(name, &self.words(&self.objects[asked_by], side))?)
    }

    fn words<'a>(&'a self, speaker: &'a Object, side: Side) -> Words<'a> {
        let platform = platform(self.objects[0].image.kind);
        Words { origin: speaker.origin(side), lib: &self.loader.lib, platform }
    }

    fn defaults(&self, asked_by: usize) -> &[PathBuf] {
        if self.objects[asked_by].image.no_defaults { &[] } else { &self.loader.directories }
    }

    fn is_default(&self, directory: &Path) -> bool {
        self.loader.directories.iter().any(|known| known == directory)
    }
}

/// One place that a loader looks in.
enum Place {
    File(PathBuf),
    Directory(PathBuf),
    /// What the cache says.
    Cache(Vec<PathBuf>),
}

fn is_path(name: &OsStr) -> bool {
    name.as_bytes().contains(&b'/')
}

/// What the kernel calls the machine.
fn platform(kind: Kind) -> &'static str {
    match object::elf::Machine(kind.machine) {
        object::elf::EM_X86_64 => "x86_64",
        object::elf::EM_386 => "i686",
        object::elf::EM_AARCH64 => "aarch64",
        _ => std::env::consts::ARCH,
    }
}
