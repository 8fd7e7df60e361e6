//! The rooms of the two large crates, from top to bottom.

/// A crate whose source is in rooms.
pub(crate) struct House {
    /// Directory of the crate in the workspace.
    pub(crate) directory: &'static str,
    /// Name of the crate, for people.
    pub(crate) name: &'static str,
    /// The crate's root, which may import every room.
    pub(crate) root: Room,
    /// Rooms on one level do not import each other. A room imports every room on the levels below, except
    /// those that it names.
    pub(crate) levels: &'static [&'static [Room]],
    /// Types whose methods are in some rooms alone.
    pub(crate) owners: &'static [Owner],
}

/// A directory in `src/`, or a file.
pub(crate) struct Room {
    pub(crate) name: &'static str,
    /// One line for the drawing.
    pub(crate) holds: &'static str,
    /// Rooms below that it does not import.
    pub(crate) not: &'static [&'static str],
}

/// A type with the rooms that may have an `impl` of it.
pub(crate) struct Owner {
    pub(crate) name: &'static str,
    pub(crate) rooms: &'static [&'static str],
}

const fn room(name: &'static str, holds: &'static str) -> Room {
    Room { name, holds, not: &[] }
}

impl Room {
    const fn not(self, rooms: &'static [&'static str]) -> Self {
        Self { not: rooms, ..self }
    }
}

pub(crate) const HOUSES: &[House] = &[
    House {
        directory: "crates/stockade-cli",
        name: "stockade-cli, the command",
        root: room("main.rs", "parse, dispatch, exit code"),
        levels: &[
            &[room("cli", "the list of subcommands and nothing else")],
            &[room("commands", "one file or directory per subcommand")],
            &[
                room("batch", "several jails of one command, supervised together"),
                room("select", "which jails a command acts on"),
            ],
            &[room("jail_file", "jail files: keys, levels, schema")],
            &[room("flags", "flag groups that several subcommands share")],
            &[room("errors", "hints for library errors, usage errors")],
            &[room("terminal", "stdout, stderr, progress, signals, terminals")],
        ],
        owners: &[],
    },
    House {
        directory: "crates/stockade",
        name: "stockade, the library",
        root: room("lib.rs", "re-exports, crate documentation"),
        levels: &[
            &[room("check", "doctor, audit, host snapshots").not(&["watch"])],
            &[
                room("watch", "events, log, inspect, usage"),
                room("jail", "a jail's life: create to teardown"),
            ],
            &[room("state", "the state directory: receipts, locks, listings")],
            &[room("plan", "decisions: from specification and host facts to steps")],
            &[
                room("steps", "one file per kind of step: apply, undo"),
                room("host", "facts about this host, host-wide set-up").not(&["entry"]),
            ],
            &[room("error", "the public Error and ErrorKind")],
            &[room(
                "entry",
                "what the VMM's process does to itself, as data, and its compilation to a child program",
            )],
            &[room("sys", "kernel objects: processes, cgroups, mounts, file trees")],
            &[room("spec", "typed and checked values that describe a jail")],
        ],
        owners: &[
            Owner { name: "Store", rooms: &["state", "jail", "watch"] },
            Owner { name: "Receipt", rooms: &["state", "jail", "watch"] },
        ],
    },
];

impl House {
    /// Every room, from top to bottom.
    pub(crate) fn rooms(&self) -> impl Iterator<Item = &'static Room> {
        self.levels.iter().copied().flatten()
    }

    pub(crate) fn has(&self, room: &str) -> bool {
        self.rooms().any(|other| other.name == room)
    }

    /// The rooms that a room may import, from top to bottom.
    pub(crate) fn below(&self, room: &str) -> Vec<&'static str> {
        let is_here = |level: &&[Room]| level.iter().any(|other| other.name == room);
        let levels = self.levels.iter().copied().skip_while(|level| !is_here(level)).skip(1);
        let not = self.rooms().find(|other| other.name == room).map_or(&[][..], |room| room.not);
        levels.flatten().map(|room| room.name).filter(|name| !not.contains(name)).collect()
    }

    /// Mistakes in the list itself.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let names: Vec<&str> = self.rooms().map(|room| room.name).collect();
        for (number, name) in names.iter().enumerate() {
            if names[..number].contains(name) {
                problems.push(format!("room {name} is listed twice: it would be above itself"));
            }
        }
        for (number, level) in self.levels.iter().enumerate() {
            let below: Vec<&str> =
                self.levels[number + 1..].iter().copied().flatten().map(|r| r.name).collect();
            for room in *level {
                for other in room.not.iter().filter(|other| !below.contains(other)) {
                    problems.push(format!("room {}: {other} is not below it", room.name));
                }
            }
        }
        for owner in self.owners {
            for room in owner.rooms.iter().filter(|room| !self.has(room)) {
                problems.push(format!("the owner {room} of {} is no room", owner.name));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn house(levels: &'static [&'static [Room]]) -> House {
        House { directory: "a", name: "a", root: room("lib.rs", ""), levels, owners: &[] }
    }

    #[test]
    fn the_list_has_no_loop_and_no_upward_entry() {
        for house in HOUSES {
            assert_eq!(house.problems(), [""; 0]);
            for room in house.rooms() {
                let below = house.below(room.name);
                assert!(!below.contains(&room.name), "{} is below itself", room.name);
                for other in below {
                    assert!(
                        !house.below(other).contains(&room.name),
                        "{} and {other} form a loop",
                        room.name
                    );
                }
            }
        }
    }

    #[test]
    fn a_loop_or_an_upward_entry_in_a_list_is_a_problem() {
        const TWICE: &[&[Room]] = &[&[room("a", "")], &[room("b", "")], &[room("a", "")]];
        const UPWARD: &[&[Room]] = &[&[room("a", "")], &[room("b", "").not(&["a"])]];
        const OWNERS: &[Owner] = &[Owner { name: "T", rooms: &["c"] }];
        let twice = house(TWICE);
        assert_eq!(twice.problems(), ["room a is listed twice: it would be above itself"]);
        let upward = house(UPWARD);
        assert_eq!(upward.problems(), ["room b: a is not below it"]);
        let owned = House { owners: OWNERS, ..house(&[]) };
        assert_eq!(owned.problems(), ["the owner c of T is no room"]);
    }

    #[test]
    fn a_room_imports_what_is_below_and_nothing_beside_it() {
        let library = &HOUSES[1];
        assert_eq!(library.below("steps"), ["error", "entry", "sys", "spec"]);
        assert_eq!(library.below("host"), ["error", "sys", "spec"]);
        assert_eq!(library.below("jail")[0], "state");
        assert_eq!(library.below("spec"), [""; 0]);
        assert!(!HOUSES[0].below("batch").contains(&"select"));
    }
}
