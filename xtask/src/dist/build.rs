//! Builds the programs without the paths of this host in them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{Done, built, cargo, command, output, root, run};

/// The built programs.
pub(crate) struct Programs {
    pub(crate) stockade: PathBuf,
    pub(crate) jailer: PathBuf,
}

/// The packages of the programs.
pub(super) const PACKAGES: [&str; 2] = ["stockade-cli", "jailer"];

/// The program and the profile of each package. The profile's name is also that of its build directory.
const PROGRAMS: [(&str, &str); 2] = [("stockade", "dist"), ("jailer", "drop-in")];

impl Programs {
    pub(crate) fn build() -> Done<Self> {
        // Fetch all sources, so that their directories exist.
        run(&mut cargo(&["fetch", "--locked", "--quiet"]))?;
        let paths = HostPaths::of_this_host()?;
        let flags = format!("build.rustflags={:?}", paths.remapped());
        // Separate builds: in one build the drop-in would contain features that only the command needs.
        for (package, (_, profile)) in PACKAGES.iter().zip(PROGRAMS) {
            let arguments =
                ["build", "--locked", "--profile", profile, "--package", package, "--config", &flags];
            run(cargo(&arguments).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS"))?;
        }
        let [stockade, jailer] = PROGRAMS.map(|(program, profile)| built(&format!("{profile}/{program}")));
        let programs = Self { stockade: stockade?, jailer: jailer? };
        paths.ensure_absent_from(&programs.stockade)?;
        paths.ensure_absent_from(&programs.jailer)?;
        Ok(programs)
    }
}

/// The directories of sources on this host, which would appear in the messages of panics.
struct HostPaths {
    /// Each directory with its replacement. If several contain a file, the last one counts.
    names: Vec<(PathBuf, &'static str)>,
}

impl HostPaths {
    fn of_this_host() -> Done<Self> {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
        let toolchain = output(&mut command("rustc", &["--print", "sysroot"]))?;
        let mut names =
            vec![(root(), "/stockade"), (cargo.clone(), "/cargo"), (toolchain.trim().into(), "/rust")];
        let registries = cargo.join("registry/src");
        let found = fs::read_dir(&registries).map_err(|e| format!("read {}: {e}", registries.display()))?;
        // The directories' names contain the registry's host.
        names.extend(found.flatten().map(|registry| (registry.path(), "/crates")));
        Ok(Self { names })
    }

    /// The flags that make rustc use the replacements.
    fn remapped(&self) -> Vec<String> {
        let flag = |(path, name): &(PathBuf, &str)| format!("--remap-path-prefix={}={name}", path.display());
        self.names.iter().map(flag).collect()
    }

    fn ensure_absent_from(&self, program: &Path) -> Done {
        let bytes = fs::read(program).map_err(|e| format!("read {}: {e}", program.display()))?;
        let contains = |path: &Path| {
            let path = path.as_os_str().as_encoded_bytes();
            bytes.windows(path.len()).any(|window| window == path)
        };
        self.names.iter().find(|(path, _)| contains(path)).map_or(Ok(()), |(path, _)| {
            Err(format!("{} contains {}, a directory of this host", program.display(), path.display()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_path_of_its_builder_is_refused() {
        let program = std::env::current_exe().expect("this program's path");
        let paths = |path: &str| HostPaths { names: vec![(path.into(), "/elsewhere")] };
        // Joined at run time, so that the program does not contain the path.
        let absent = ["/no/such", "directory"].join("/");
        assert_eq!(paths(&absent).ensure_absent_from(&program), Ok(()));
        let refused = paths(env!("CARGO_MANIFEST_DIR")).ensure_absent_from(&program);
        assert!(refused.is_err_and(|line| line.contains(env!("CARGO_MANIFEST_DIR"))));
        assert_eq!(paths("/a").remapped(), ["--remap-path-prefix=/a=/elsewhere"]);
    }
}
