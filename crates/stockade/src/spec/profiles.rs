//! Profiles by name: built in or in TOML files.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::{ExecFile, Profile, SpecError, errno, not_expanded};

/// The default directory of profiles.
pub const DEFAULT_PROFILE_DIRECTORY: &str = "/etc/stockade/profiles";

/// The built-in profiles, and a directory of profiles in files `NAME.toml`.
///
/// A file has precedence over a built-in profile of the same name or for the same executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profiles {
    directory: PathBuf,
}

impl Default for Profiles {
    fn default() -> Self {
        Self::new(Path::new(DEFAULT_PROFILE_DIRECTORY))
    }
}

impl Profiles {
    /// The profiles of a directory, which is optional.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Finds a profile by file or name: `argument` is a file if it has a slash or ends in `.toml`.
    ///
    /// # Errors
    /// * [`SpecError::UnknownProfile`] if no profile has this name
    /// * [`SpecError::ProfileFile`] if a file cannot be read or understood
    pub fn named(&self, argument: &str) -> Result<Profile, SpecError> {
        let path = Path::new(argument);
        if argument.contains('/') || is_toml(path) {
            return read(path);
        }
        let all = self.all()?;
        let names = || all.iter().map(|profile| profile.name.clone()).collect::<Vec<_>>().join(", ");
        let found = all.iter().find(|profile| profile.name == argument);
        found.cloned().ok_or_else(|| SpecError::UnknownProfile(argument.to_owned(), names()))
    }

    /// The first profile that the executable's name selects; the plain profile if none matches.
    ///
    /// # Errors
    /// Returns [`SpecError::ProfileFile`] if a file cannot be read or understood.
    pub fn for_executable(&self, exec_file: &ExecFile) -> Result<Profile, SpecError> {
        let found = self.all()?.into_iter().find(|profile| profile.is_for(exec_file.name()));
        Ok(found.unwrap_or_else(Profile::plain))
    }

    /// All profiles: first those in files, sorted by file name, then the built-in ones.
    ///
    /// # Errors
    /// * [`SpecError::ProfileFile`] if a file cannot be read or understood
    /// * [`SpecError::Argument`] named `profile-dir` if the directory cannot be read
    pub fn all(&self) -> Result<Vec<Profile>, SpecError> {
        let mut all = self.files()?.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
        let built_in = Profile::built_in().into_iter();
        let hidden = |profile: &Profile| all.iter().any(|other| other.name == profile.name);
        let built_in: Vec<_> = built_in.filter(|profile| !hidden(profile)).collect();
        all.extend(built_in);
        Ok(all)
    }

    fn files(&self) -> Result<Vec<PathBuf>, SpecError> {
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(e) => {
                let cause = match errno(&e) {
                    Errno::NOENT if not_expanded(&self.directory).is_none() => return Ok(Vec::new()),
                    Errno::NOTDIR => SpecError::NotADirectory(self.directory.clone()),
                    other => SpecError::NotFound(self.directory.clone(), other),
                };
                return Err(SpecError::Argument { name: "profile-dir", cause: Box::new(cause) });
            }
        };
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| is_toml(path));
        files.sort();
        Ok(files)
    }
}

impl Profile {
    /// Parses a profile from TOML. If the text contains no name, the profile gets `name`.
    ///
    /// # Errors
    /// Returns the line and the problem.
    pub fn parse(text: &str, name: &str) -> Result<Self, String> {
        let mut profile: Self = toml::from_str(text).map_err(|e| {
            let before = e.span().map_or(0, |span| span.start.min(text.len()));
            let line = text[..before].matches('\n').count() + 1;
            format!("line {line}: {}", e.message().replace('\n', " "))
        })?;
        if profile.name.is_empty() {
            name.clone_into(&mut profile.name);
        }
        // A file that need not exist would be skipped.
        let unexpanded = profile.place.iter().find_map(|file| not_expanded(&file.source));
        unexpanded.map_or(Ok(profile), Err)
    }

    /// The profile as TOML, for example to start another one from.
    pub fn to_toml(&self) -> String {
        // Cannot fail: it contains texts, lists and tables only.
        toml::to_string_pretty(self).unwrap_or_default()
    }
}

fn is_toml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml")
}

fn read(path: &Path) -> Result<Profile, SpecError> {
    // The open of a named pipe would wait for a writer.
    if std::fs::metadata(path).is_ok_and(|facts| !facts.is_file() && !facts.is_dir()) {
        return Err(problem(path, &"not a regular file; name a file"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| {
        let fix = match errno(&e) {
            Errno::NOENT | Errno::NOTDIR => "; check the path",
            Errno::ISDIR => "; name a file",
            _ => "",
        };
        problem(path, &format!("{}{fix}", super::reason(&e)))
    })?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    Profile::parse(&text, &name).map_err(|e| problem(path, &e))
}

fn problem(path: &Path, problem: &dyn std::fmt::Display) -> SpecError {
    SpecError::ProfileFile(path.to_owned(), super::reason(&problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_profile_survives_its_toml() {
        for profile in Profile::built_in() {
            let text = profile.to_toml();
            assert_eq!(Profile::parse(&text, "other").as_ref(), Ok(&profile), "{text}");
        }
    }

    #[test]
    fn the_example_in_the_documentation_is_a_profile() {
        let page = include_str!("../../../../docs/profiles.md");
        let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
        let profile = Profile::parse(example.expect("an example"), "my-vmm").expect("a profile");
        assert!(profile.is_for("my-vmm-2") && profile.place[0].required);
        let socket = profile.socket(&["--control=unix:/run/other.sock,x".into()]);
        assert_eq!(socket.map(|path| path.to_string()).as_deref(), Some("/run/other.sock"));
    }

    #[test]
    fn a_mistake_is_reported_with_its_line() {
        for (text, expected) in [
            ("executables = ['x']\nargumets = []\n", "line 2: unknown field `argumets`"),
            ("arguments = ['{pid}']", "line 1: '{pid}' is not a placeholder; use {id}, "),
            ("executables = 'x'", "line 1: invalid type"),
            ("[[place]]\nname = 'a'\n", "line 1: missing field `source`"),
            ("[[place]]\nsource = '~/vmlinux'\n", "'~' in '~/vmlinux' is not expanded; write the path of"),
            ("[socket]\npath = '../x'\n", "line 2: '../x' is not a path inside a jail"),
        ] {
            let error = Profile::parse(text, "x").expect_err(text);
            assert!(error.starts_with(expected), "{error}");
            assert!(!error.contains('\n'), "{error:?}");
        }
    }
}
