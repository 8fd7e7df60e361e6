//! Builds the programs without a trace of the directory in which they were built.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{Done, built, cargo, command, output, root, run};

/// The programs to pack, as they were built.
pub(crate) struct Programs {
    pub(crate) stockade: PathBuf,
    pub(crate) jailer: PathBuf,
}

/// The packages that the programs come from.
pub(super) const PACKAGES: [&str; 2] = ["stockade-cli", "jailer"];

/// The program of each, and its profile in the workspace's manifest, whose name is that of its directory too.
const PROGRAMS: [(&str, &str); 2] = [("stockade", "dist"), ("jailer", "drop-in")];

impl Programs {
    pub(crate) fn build() -> Done<Self> {
        // So that all sources are there when their directories are looked for.
        run(&mut cargo(&["fetch", "--locked", "--quiet"]))?;
        let places = Places::of_this_host()?;
        let flags = format!("build.rustflags={:?}", places.remapped());
        // One after the other: built together, the drop-in would include code that only the command needs.
        for (package, (_, profile)) in PACKAGES.iter().zip(PROGRAMS) {
            let words = ["build", "--locked", "--profile", profile, "--package", package, "--config", &flags];
            run(cargo(&words).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS"))?;
        }
        let [stockade, jailer] = PROGRAMS.map(|(program, profile)| built(&format!("{profile}/{program}")));
        let programs = Self { stockade: stockade?, jailer: jailer? };
        places.demand_unnamed_in(&programs.stockade)?;
        places.demand_unnamed_in(&programs.jailer)?;
        Ok(programs)
    }
}

/// Where this host keeps what programs are made of: the source of each panic's place in them.
struct Places {
    /// Each directory, and what it is called instead. Of those that hold a file, the last counts.
    names: Vec<(PathBuf, &'static str)>,
}

impl Places {
    fn of_this_host() -> Done<Self> {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
        let toolchain = output(&mut command("rustc", &["--print", "sysroot"]))?;
        let mut names =
            vec![(root(), "/stockade"), (cargo.clone(), "/cargo"), (toolchain.trim().into(), "/rust")];
        let registries = cargo.join("registry/src");
        let found = fs::read_dir(&registries).map_err(|e| format!("read {}: {e}", registries.display()))?;
        // Their names contain the registry's host.
        names.extend(found.flatten().map(|registry| (registry.path(), "/crates")));
        Ok(Self { names })
    }

    /// The flags that have rustc write the other names.
    fn remapped(&self) -> Vec<String> {
        let flag =
            |(place, name): &(PathBuf, &str)| format!("--remap-path-prefix={}={name}", place.display());
        self.names.iter().map(flag).collect()
    }

    fn demand_unnamed_in(&self, program: &Path) -> Done {
        let bytes = fs::read(program).map_err(|e| format!("read {}: {e}", program.display()))?;
        let named = |place: &Path| {
            let place = place.as_os_str().as_encoded_bytes();
            bytes.windows(place.len()).any(|window| window == place)
        };
        self.names.iter().find(|(place, _)| named(place)).map_or(Ok(()), |(place, _)| {
            Err(format!("{} names {}, a directory of this host", program.display(), place.display()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_names_a_directory_of_its_builder_is_found() {
        let program = std::env::current_exe().expect("this program's path");
        let places = |place: &str| Places { names: vec![(place.into(), "/elsewhere")] };
        // Joined here, so that the program does not name it.
        let unnamed = ["/no/such", "place"].join("/");
        assert_eq!(places(&unnamed).demand_unnamed_in(&program), Ok(()));
        let told = places(env!("CARGO_MANIFEST_DIR")).demand_unnamed_in(&program);
        assert!(told.is_err_and(|line| line.contains(env!("CARGO_MANIFEST_DIR"))));
        assert_eq!(places("/a").remapped(), ["--remap-path-prefix=/a=/elsewhere"]);
    }
}
