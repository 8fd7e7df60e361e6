//! Checks the two large crates against their list of rooms, and draws that list.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::command::{Done, root};
use imports::{Names, Segments};
use list::{HOUSES, House};

mod drawing;
mod imports;
mod list;
mod roots;

/// The drawing of all rooms.
const DRAWING: &str = "docs/img/rooms.svg";

/// Checks the rooms of both crates and their drawing.
pub(crate) fn check() -> Done {
    let mut problems = Vec::new();
    for house in HOUSES {
        problems.extend(house_problems(&root(), house)?);
    }
    if fs::read_to_string(root().join(DRAWING)).unwrap_or_default() != drawing::svg(HOUSES) {
        problems.push(format!("{DRAWING}: is not what the list gives; run `cargo xtask rooms`"));
    }
    if problems.is_empty() { Ok(()) } else { Err(format!("rooms:\n{}", problems.join("\n"))) }
}

/// Writes the drawing, then checks everything.
pub(crate) fn rooms() -> Done {
    fs::write(root().join(DRAWING), drawing::svg(HOUSES)).map_err(|e| format!("write {DRAWING}: {e}"))?;
    check()
}

/// Everything that is wrong with a crate below `root`, one line each.
fn house_problems(root: &Path, house: &House) -> Done<Vec<String>> {
    let mut problems: Vec<String> = house.problems();
    let source = root.join(house.directory).join("src");
    let mut files = BTreeMap::new();
    list_files(&source, &mut Vec::new(), &mut files)?;
    let prefix = format!("{}/src", house.directory);
    let Some(top) = files.remove(&vec![house.root.name.to_owned()]) else {
        return Err(format!("{prefix}/{} is missing", house.root.name));
    };
    let (roots_names, root_problems) = roots::read(&format!("{prefix}/{}", house.root.name), &top)?;
    problems.extend(root_problems);
    let exports = roots_names.aliases;
    for house_room in house.rooms() {
        if !files.keys().any(|path| room_of(path) == house_room.name) {
            problems.push(format!("{prefix}: room {} is on the list and not there", house_room.name));
        }
    }
    let mut unknown = String::new();
    for (path, text) in &files {
        let room = room_of(path);
        if !house.has(room) {
            // One line for a directory with many files.
            if unknown != path[0] {
                problems.push(format!(
                    "{prefix}/{}: is in no room; move it into one, or list it in xtask/src/rooms/list.rs",
                    path[0]
                ));
                unknown.clone_from(&path[0]);
            }
            continue;
        }
        let file = format!("{prefix}/{}", path.join("/"));
        let names = imports::names(text, &module_of(path)).map_err(|e| format!("{file}: {e}"))?;
        problems.extend(file_problems(house, room, &file, &names, &exports));
    }
    Ok(problems)
}

/// Names in a file that are forbidden in its room.
fn file_problems(
    house: &House,
    room: &str,
    file: &str,
    names: &Names,
    exports: &[(String, Segments)],
) -> Vec<String> {
    let below = house.below(room);
    let mut problems = Vec::new();
    for path in &names.paths {
        let (name, line) = &path[0];
        let Some(other) = room_named(house, name, exports) else {
            problems.push(format!(
                "{file}:{line}: `crate::{name}` names no room and nothing that {} re-exports by name; write the \
                 full path",
                house.root.name
            ));
            continue;
        };
        if other != room && !below.contains(&other) {
            let below = if below.is_empty() { "nothing".to_owned() } else { below.join(", ") };
            problems.push(format!(
                "{file}:{line}: room {room} may not import room {other} (below it are: {below}); move what \
                 imports up, or what is imported down"
            ));
        }
    }
    for (name, line) in &names.impls {
        let owner = house.owners.iter().find(|owner| owner.name == name && !owner.rooms.contains(&room));
        if let Some(owner) = owner {
            problems.push(format!(
                "{file}:{line}: room {room} may not have an `impl` of {name} (these may: {}); make it a function, \
                 or move it",
                owner.rooms.join(", ")
            ));
        }
    }
    // A line may name several things of one room.
    problems.dedup();
    problems
}

/// The room that `crate::NAME` is in: itself, or where the crate's root takes it from.
fn room_named<'a>(house: &House, name: &'a str, exports: &'a [(String, Segments)]) -> Option<&'a str> {
    if house.has(name) {
        return Some(name);
    }
    let (_, path) = exports.iter().find(|(alias, _)| alias == name)?;
    let first = path.iter().map(|(name, _)| name.as_str()).find(|name| !matches!(*name, "crate" | "self"))?;
    house.has(first).then_some(first)
}

/// The room of a file, by its path below `src`.
fn room_of(path: &[String]) -> &str {
    path[0].strip_suffix(".rs").unwrap_or(&path[0])
}

/// The module of a file, by its path below `src`.
fn module_of(path: &[String]) -> Vec<String> {
    let mut module = path.to_vec();
    let last = module.pop().unwrap_or_default();
    if last != "mod.rs" {
        module.push(last.trim_end_matches(".rs").to_owned());
    }
    module
}

/// Reads the files below a directory, by their paths; those that are no Rust are empty.
fn list_files(directory: &Path, path: &mut Vec<String>, files: &mut BTreeMap<Vec<String>, String>) -> Done {
    let error = |e| format!("read {}: {e}", directory.display());
    for entry in fs::read_dir(directory).map_err(error)?.flatten() {
        path.push(entry.file_name().to_string_lossy().into_owned());
        if entry.path().is_dir() {
            list_files(&entry.path(), path, files)?;
        } else {
            let is_rust = entry.path().extension().is_some_and(|kind| kind == "rs");
            let text = if is_rust { fs::read_to_string(entry.path()).map_err(error)? } else { String::new() };
            files.insert(path.clone(), text);
        }
        path.pop();
    }
    Ok(())
}

#[cfg(test)]
mod tests;
