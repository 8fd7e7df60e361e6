//! Small trees with a planted mistake each.

use std::sync::atomic::{AtomicU32, Ordering};

use super::list::{Owner, Room};
use super::*;

const fn room(name: &'static str) -> Room {
    Room { name, holds: "", not: &[] }
}

const LIBRARY: House = House {
    directory: "crates/a",
    name: "a",
    root: room("lib.rs"),
    levels: &[&[room("watch"), room("jail")], &[room("state")], &[room("error")], &[room("sys")]],
    owners: &[Owner { name: "Store", rooms: &["state", "jail"] }],
};

/// The problems of a library that has these files instead of or beside those of a correct one.
fn problems(planted: &[(&str, &str)]) -> Vec<String> {
    problems_of(&LIBRARY, planted)
}

fn problems_of(house: &House, planted: &[(&str, &str)]) -> Vec<String> {
    static TREES: AtomicU32 = AtomicU32::new(0);
    let number = TREES.fetch_add(1, Ordering::Relaxed);
    let tree = std::env::temp_dir().join(format!("stockade-rooms-{}-{number}", std::process::id()));
    let correct = [
        (
            house.root.name,
            "//! Docs.\n\nmod error;\nmod state;\n\npub use error::Error;\npub use state::{Lock, Store as S};\n",
        ),
        ("watch/mod.rs", "use crate::state::Store;\nuse crate::sys;\n"),
        ("jail/mod.rs", "use crate::{Error, S};\nimpl Store {}\n"),
        ("state/mod.rs", "mod store;\n"),
        ("state/store.rs", "use super::super::error::Error;\nuse super::Lock;\nimpl Store {}\n"),
        ("error.rs", "use crate::sys::Errno;\n"),
        ("sys/mod.rs", "// use crate::jail;\n/// See [`crate::jail`].\nfn f() {}\n"),
    ];
    for (name, text) in correct.iter().chain(planted) {
        let path = tree.join(house.directory).join("src").join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("create a directory");
        fs::write(path, text).expect("write a file");
    }
    let problems = house_problems(&tree, house).expect("a tree that can be read");
    fs::remove_dir_all(tree).expect("remove the tree");
    problems
}

#[test]
fn a_correct_tree_passes() {
    assert_eq!(problems(&[]), [""; 0]);
}

#[test]
fn an_upward_import_is_found_with_file_line_and_both_rooms() {
    let found = problems(&[("state/lock.rs", "// A comment.\n\nuse crate::jail::Jail;\n")]);
    assert_eq!(
        found,
        ["crates/a/src/state/lock.rs:3: room state may not import room jail (below it are: error, sys); \
                        move what imports up, or what is imported down"]
    );
}

#[test]
fn rooms_side_by_side_do_not_import_each_other() {
    let found = problems(&[("watch/log.rs", "pub(crate) use crate::jail::Jail;\n")]);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("crates/a/src/watch/log.rs:1: room watch may not import room jail"),
        "{found:?}"
    );
}

#[test]
fn nested_groups_inline_paths_and_chains_of_super_are_found() {
    let source = "use crate::{\n    sys::Errno,\n    jail::{self, Jail},\n};\nfn f() {\n    crate::watch::log();\n}\n\
                  mod tests {\n    use super::super::super::jail::Running;\n}\n";
    let found = problems(&[("state/lock.rs", source)]);
    let places: Vec<&str> = found.iter().filter_map(|line| line.split(" (below").next()).collect();
    assert_eq!(
        places,
        [
            "crates/a/src/state/lock.rs:3: room state may not import room jail",
            "crates/a/src/state/lock.rs:6: room state may not import room watch",
            "crates/a/src/state/lock.rs:9: room state may not import room jail",
        ]
    );
}

#[test]
fn a_re_export_counts_as_the_room_it_comes_from() {
    let found = problems(&[("sys/mod.rs", "use crate::Error;\nuse crate::S;\n")]);
    assert_eq!(found.len(), 2);
    assert!(found[0].contains(":1: room sys may not import room error (below it are: nothing)"), "{found:?}");
    assert!(found[1].contains(":2: room sys may not import room state"), "{found:?}");
}

#[test]
fn a_name_of_the_root_that_is_in_no_room_needs_its_full_path() {
    let found = problems(&[("state/lock.rs", "use crate::Unknown;\nuse crate::*;\n")]);
    assert_eq!(found.len(), 2);
    assert!(found[0].contains("crates/a/src/state/lock.rs:1: `crate::Unknown` names no room"), "{found:?}");
    assert!(found[1].contains("lock.rs:2: `crate::*` names no room"), "{found:?}");
}

#[test]
fn a_file_or_folder_in_no_room_is_found_once() {
    let found = problems(&[("tools/a.rs", ""), ("tools/b.rs", ""), ("left.rs", "")]);
    let places: Vec<&str> = found.iter().filter_map(|line| line.split(';').next()).collect();
    assert_eq!(places, ["crates/a/src/left.rs: is in no room", "crates/a/src/tools: is in no room"]);
}

#[test]
fn a_room_of_the_list_that_is_not_there_is_found() {
    const LEVELS: &[&[Room]] = &[
        &[room("watch"), room("jail")],
        &[room("state")],
        &[room("plan")],
        &[room("error")],
        &[room("sys")],
    ];
    let larger = House { levels: LEVELS, ..LIBRARY };
    assert_eq!(problems_of(&larger, &[]), ["crates/a/src: room plan is on the list and not there"]);
}

#[test]
fn logic_in_the_root_of_a_library_is_found() {
    let source = "//! Docs.\n#![warn(missing_docs)]\n\n/// Docs.\npub mod guide {}\n#[cfg(test)]\nmod tests;\n\
                  pub use state::{Lock, Store as S};\npub use error::Error;\npub(crate) fn f() {}\n\nimpl S {}\n\
                  mod inline {\n    fn g() {}\n}\n";
    let found = problems(&[("lib.rs", source)]);
    assert_eq!(
        found,
        [
            "crates/a/src/lib.rs:10: holds logic (`fn`); move it into a room",
            "crates/a/src/lib.rs:12: holds logic (`impl`); move it into a room",
            "crates/a/src/lib.rs:13: holds logic (`mod`); move it into a room",
        ]
    );
}

#[test]
fn a_program_has_few_lines_of_functions() {
    let program = House { root: room("main.rs"), ..LIBRARY };
    let main = |lines: usize| {
        format!(
            "use error::Error;\nuse state::Store as S;\nfn main() {{\n{}}}\n",
            "    f();\n".repeat(lines - 2)
        )
    };
    assert_eq!(problems_of(&program, &[("main.rs", &main(70))]), [""; 0]);
    let found = problems_of(&program, &[("main.rs", &main(71))]);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("crates/a/src/main.rs:3: 71 lines of functions"), "{found:?}");
    let found = problems_of(&program, &[("main.rs", &(main(10) + "struct A;\n"))]);
    assert_eq!(found, ["crates/a/src/main.rs:13: holds logic (`struct`); move it into a room"]);
}

#[test]
fn an_impl_outside_the_rooms_of_its_type_is_found() {
    let found = problems(&[("watch/log.rs", "struct Log;\nimpl Store {\n    fn log() {}\n}\n")]);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("crates/a/src/watch/log.rs:2: room watch may not have an `impl` of Store"),
        "{found:?}"
    );
}
