//! The components of the programs: a bill of materials in CycloneDX, and the licenses of all linked crates.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::read;
use super::release::Release;
use crate::command::{Done, cargo, command, output, root};

/// The two documents.
pub(crate) struct Bom {
    /// The bill of materials: CycloneDX as JSON.
    pub(crate) document: String,
    /// The texts of the licenses, each with its crates.
    pub(crate) licenses: String,
}

/// Creates the documents of the programs of these workspace packages.
pub(crate) fn of(packages: &[&str], release: &Release) -> Done<Bom> {
    let linked = Linked::into(packages)?;
    Ok(Bom { document: document(&linked, packages, release)?, licenses: licenses(&linked)? })
}

/// The crates with code in the programs.
struct Linked {
    /// The metadata of each crate, by its id.
    crates: BTreeMap<String, Value>,
    /// The linked dependencies of each crate, by its id.
    edges: BTreeMap<String, BTreeSet<String>>,
    /// The checksum of each crate from a registry, by name and version.
    checksums: BTreeMap<(String, String), String>,
}

impl Linked {
    fn into(packages: &[&str]) -> Done<Self> {
        let target = output(&mut command("rustc", &["--print", "host-tuple"]))?;
        let arguments = ["metadata", "--format-version=1", "--locked", "--filter-platform", target.trim()];
        let metadata: Value = serde_json::from_str(&output(&mut cargo(&arguments))?)
            .map_err(|e| format!("cargo metadata: {e}"))?;
        let known: BTreeMap<&str, &Value> =
            list(&metadata["packages"]).iter().map(|package| (text(&package["id"]), package)).collect();
        let nodes: BTreeMap<&str, &Value> =
            list(&metadata["resolve"]["nodes"]).iter().map(|node| (text(&node["id"]), node)).collect();
        let mut linked = Self { crates: BTreeMap::new(), edges: BTreeMap::new(), checksums: checksums()? };
        let mut open: Vec<&str> =
            known.iter().filter(|(_, it)| packages.contains(&text(&it["name"]))).map(|(id, _)| *id).collect();
        while let Some(id) = open.pop() {
            let Some((package, node)) = known.get(id).zip(nodes.get(id)) else { continue };
            if linked.crates.insert(id.to_owned(), (*package).clone()).is_some() {
                continue;
            }
            let needed = list(&node["deps"]).iter().filter(|dependency| is_linked(dependency));
            let needed = needed.map(|dependency| text(&dependency["pkg"]));
            let needed: Vec<&str> =
                needed.filter(|id| known.get(id).is_some_and(|it| !is_macro(it))).collect();
            linked.edges.insert(id.to_owned(), needed.iter().map(|id| (*id).to_owned()).collect());
            open.extend(needed);
        }
        Ok(linked)
    }

    /// The crates of other projects.
    fn foreign(&self) -> impl Iterator<Item = &Value> {
        self.crates.values().filter(|package| !package["source"].is_null())
    }

    fn reference(&self, id: &str) -> Value {
        self.crates.get(id).map_or(Value::Null, reference)
    }
}

/// Whether a dependency is in the program: those for tests and builds are not.
fn is_linked(dependency: &Value) -> bool {
    list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null())
}

/// Whether a package is a procedural macro, which runs in the compiler.
fn is_macro(package: &Value) -> bool {
    list(&package["targets"])
        .iter()
        .any(|target| list(&target["kind"]).iter().any(|kind| kind == "proc-macro"))
}

/// The checksums in `Cargo.lock`.
fn checksums() -> Done<BTreeMap<(String, String), String>> {
    let lock: toml::Table =
        read(&root().join("Cargo.lock"))?.parse().map_err(|e| format!("read Cargo.lock: {e}"))?;
    let packages =
        lock.get("package").and_then(toml::Value::as_array).ok_or("Cargo.lock lists no package")?;
    let field = |package: &toml::Value, name| package.get(name)?.as_str().map(str::to_owned);
    let entry =
        |package| Some(((field(package, "name")?, field(package, "version")?), field(package, "checksum")?));
    Ok(packages.iter().filter_map(entry).collect())
}

fn document(linked: &Linked, packages: &[&str], release: &Release) -> Done<String> {
    let programs = linked.crates.values().filter(|package| packages.contains(&text(&package["name"])));
    let runtime = runtime()?;
    let parts = programs.map(reference).chain(runtime.iter().map(|part| part["bom-ref"].clone()));
    let whole = json!({ "ref": "stockade", "dependsOn": parts.collect::<Vec<Value>>() });
    let edges = linked.edges.iter().map(|(id, needed)| {
        let needed: Vec<Value> = needed.iter().map(|id| linked.reference(id)).collect();
        json!({ "ref": linked.reference(id), "dependsOn": needed })
    });
    let dependencies: Vec<Value> = std::iter::once(whole).chain(edges).collect();
    let components = linked.crates.values().map(|package| component(package, linked));
    let components: Vec<Value> = components.chain(runtime).collect();
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": release.date("+%Y-%m-%dT%H:%M:%SZ")?,
            "component": {
                "type": "application",
                "bom-ref": "stockade",
                "name": "stockade",
                "version": release.version,
                "licenses": [{ "expression": "Apache-2.0" }],
            },
        },
        "components": components,
        "dependencies": dependencies,
    });
    serde_json::to_string_pretty(&document).map(|text| text + "\n").map_err(|e| e.to_string())
}

fn component(package: &Value, linked: &Linked) -> Value {
    let (name, version) = (text(&package["name"]), text(&package["version"]));
    let mut component = json!({
        "type": "library",
        "bom-ref": reference(package),
        "name": name,
        "version": version,
        // Some crates still use the old separator.
        "licenses": [{ "expression": text(&package["license"]).replace('/', " OR ") }],
    });
    if let Some(sum) = linked.checksums.get(&(name.to_owned(), version.to_owned())) {
        component["purl"] = format!("pkg:cargo/{name}@{version}").into();
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    }
    component
}

/// The components of every program besides its crates: Rust's standard library and the C library.
fn runtime() -> Done<[Value; 2]> {
    let rust = output(&mut command("rustc", &["--version"]))?;
    let libc = output(&mut command("getconf", &["GNU_LIBC_VERSION"]))?;
    let component = |name: &str, version: &str, license: &str| {
        json!({
            "type": "library",
            "bom-ref": format!("{name}@{version}"),
            "name": name,
            "version": version,
            "licenses": [{ "expression": license }],
        })
    };
    let version = |line: &str| line.split_whitespace().nth(1).unwrap_or_default().to_owned();
    Ok([
        component("rust-std", &version(&rust), "MIT OR Apache-2.0"),
        component("glibc", &version(&libc), "LGPL-2.1-or-later"),
    ])
}

fn reference(package: &Value) -> Value {
    format!("{}@{}", text(&package["name"]), text(&package["version"])).into()
}

/// Each license text once, below the names of its crates.
fn licenses(linked: &Linked) -> Done<String> {
    let mut under: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in linked.foreign() {
        let name = format!(
            "{} {} ({})",
            text(&package["name"]),
            text(&package["version"]),
            text(&package["license"])
        );
        for text in license_texts(Path::new(text(&package["manifest_path"])))? {
            under.entry(text).or_default().insert(name.clone());
        }
    }
    let line = "=".repeat(80);
    let chapter = |(text, names): (String, BTreeSet<String>)| {
        let names: Vec<String> = names.into_iter().collect();
        format!("{line}\n{}\n{line}\n\n{}\n\n", names.join("\n"), text.trim_end())
    };
    Ok(under.into_iter().map(chapter).collect())
}

/// The license texts in a manifest's directory.
fn license_texts(manifest: &Path) -> Done<Vec<String>> {
    let directory = manifest.parent().unwrap_or(manifest);
    let entries = fs::read_dir(directory).map_err(|e| format!("read {}: {e}", directory.display()))?;
    let is_license = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        path.is_file()
            && ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"]
                .iter()
                .any(|beginning| name.starts_with(beginning))
    };
    let mut files: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter(|path| is_license(path)).collect();
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
