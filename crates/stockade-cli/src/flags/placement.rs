//! What is to be placed, as the command line says it: `SRC[=NAME][:OPTION]...`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use stockade::{How, OnProgress, Placed, Placement, Stripped};
use stockade_syscalls::signals::SignalFd;

use crate::terminal::output::{Failure, info};
use crate::terminal::progress::Bar;
use crate::terminal::signals::check_no_signal;

/// The option that no way to place is.
const READ_ONLY: &str = "ro";

/// Reads an argument on top of what is asked for already.
///
/// What is there under a name counts as that name, whatever is in it; the last `=` and the options behind it
/// count otherwise. The text of an error says what is wrong with the argument.
pub(crate) fn parse(argument: &OsStr, base: &impl Fn(&Path) -> Placement) -> Result<Placement, String> {
    let (rest, options) = split_options(argument.as_bytes())?;
    let (source, name) = split_name(rest);
    check_no_colon(source)?;
    let mut placement = base(source);
    if let Some(name) = name {
        placement = placement.named(name);
    }
    let mut method = None;
    for option in options {
        match How::NAMED.into_iter().find(|how| how.to_string() == option) {
            None => placement = placement.read_only(),
            Some(how) if method.is_none_or(|method| method == how) => method = Some(how),
            Some(how) => {
                return Err(format!("only one of {} and {how} can be", method.unwrap_or_default()));
            }
        }
    }
    Ok(method.map_or(placement.clone(), |how| placement.how(how)))
}

/// Takes the options off the end of an argument.
fn split_options(argument: &[u8]) -> Result<(&[u8], Vec<&str>), String> {
    let (mut rest, mut options) = (argument, Vec::new());
    while !path(rest).exists()
        && let Some(at) = rest.iter().rposition(|byte| *byte == b':')
        && !rest[at..].iter().any(|byte| matches!(byte, b'/' | b'='))
    {
        let word = String::from_utf8_lossy(&rest[at + 1..]);
        match known(&word) {
            Some(option) => options.push(option),
            // A colon in a name that leads nowhere anyway.
            None if !split_name(&rest[..at]).0.exists() => break,
            None => return Err(format!("{word:?} is no option; there are {}", names().join(", "))),
        }
        rest = &rest[..at];
    }
    Ok((rest, options))
}

fn known(word: &str) -> Option<&'static str> {
    names().into_iter().find(|name| *name == word)
}

fn names() -> [&'static str; 6] {
    [READ_ONLY, "bind", "copy", "link", "node", "reflink"]
}

/// `SRC=NAME`, unless there is a file of that whole name; the last `=` counts.
fn split_name(argument: &[u8]) -> (&Path, Option<&Path>) {
    let split = argument.iter().rposition(|byte| *byte == b'=').filter(|_| !path(argument).exists());
    match split {
        Some(at) => (path(&argument[..at]), Some(path(&argument[at + 1..]))),
        None => (path(argument), None),
    }
}

/// Refuses `SRC:NAME`, as other tools have it, where only the part before a colon is there.
fn check_no_colon(source: &Path) -> Result<(), String> {
    let bytes = source.as_os_str().as_bytes();
    let colon = bytes.iter().position(|byte| *byte == b':').filter(|_| !source.exists());
    let Some(at) = colon.filter(|at| path(&bytes[..*at]).exists()) else { return Ok(()) };
    let (before, after) = (path(&bytes[..at]).display(), path(&bytes[at + 1..]).display());
    Err(format!("there is no such file; a name in the jail goes behind an equals sign: {before}={after}"))
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Refuses two placements with one target, and what cannot be a source or a target at all.
///
/// # Arguments
/// `flag` is the one that they are values of, if of any.
pub(crate) fn check_distinct(placements: &[Placement], flag: Option<&str>) -> Result<(), Failure> {
    let mut taken = BTreeMap::new();
    for placement in placements {
        let source = placement.source();
        let target = placement.target().map_err(|error| not_placed(flag, source, &error))?;
        if let Some(earlier) = taken.insert(target.clone(), source) {
            return Err(placement_failure(
                flag,
                source,
                &format!("{target} is taken by {} already", earlier.display()),
            ));
        }
    }
    Ok(())
}

/// Places something, with a bar where it takes long, until a signal asks the command to end.
///
/// # Arguments
/// `flag` is the one that it is a value of, if of any; `place` does it.
pub(crate) fn place_one(
    placement: &Placement,
    flag: Option<&str>,
    signals: &SignalFd,
    place: impl FnOnce(Placement, &mut OnProgress<'_>) -> stockade::Result<Placed>,
) -> Result<Placed, Failure> {
    let source = placement.source();
    let before = format!("{} was placed", source.display());
    let mut bar = Bar::of_copy(source);
    let mut stopped = Ok(());
    let placed = place(placement.clone(), &mut |progress| {
        bar.show(progress);
        stopped = check_no_signal(signals, &before);
        if stopped.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    stopped?;
    let placed = placed.map_err(|error| not_placed(flag, source, &error))?;
    placed.stripped.iter().for_each(report_stripped);
    Ok(placed)
}

/// Tells what the host's file has and the jail's has not.
pub(crate) fn report_stripped(stripped: &Stripped) {
    info(&format!("placed without {stripped}"));
}

/// Says which placement it was that failed.
pub(crate) fn not_placed(flag: Option<&str>, source: &Path, error: &dyn std::fmt::Display) -> Failure {
    placement_failure(flag, source, &error.to_string())
}

/// Says what is wrong with a placement.
pub(crate) fn placement_failure(flag: Option<&str>, source: &Path, text: &str) -> Failure {
    let what = source.display().to_string();
    match flag {
        Some(flag) => Failure::Flag { flag: flag.to_owned(), what: Some(what), text: text.to_owned() },
        None => Failure::new(format!("{what}: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(argument: &str) -> Result<Placement, String> {
        parse(OsStr::new(argument), &|source| Placement::new(source))
    }

    #[test]
    fn a_placement_has_a_name_behind_its_last_equals_sign_and_options_behind_that() {
        let disk = || Placement::new("/no/such=file").named("disk.img");
        assert_eq!(parsed("/no/such=file=disk.img"), Ok(disk()));
        assert_eq!(parsed("/no/such=file=disk.img:ro"), Ok(disk().read_only()));
        assert_eq!(parsed("/no/such=file=disk.img:ro:bind"), Ok(disk().read_only().how(How::Bind)));
        assert_eq!(parsed("/etc:copy"), Ok(Placement::new("/etc").how(How::Copy)));
    }

    #[test]
    fn every_way_is_an_option() {
        for how in How::NAMED {
            assert_eq!(parsed(&format!("/etc:{how}")), Ok(Placement::new("/etc").how(how)));
        }
    }

    #[test]
    fn a_file_keeps_every_character_of_its_name() {
        let directory = std::env::temp_dir().join(format!("stockade-placements-{}", std::process::id()));
        std::fs::create_dir(&directory).expect("make a directory");
        let file = directory.join("a=b:ro");
        std::fs::write(&file, "").expect("write a file");
        let argument = file.display().to_string();
        let whole = parsed(&argument);
        let bound = parsed(&format!("{argument}:bind"));
        let named = parsed(&format!("{argument}=x:ro"));
        std::fs::remove_dir_all(&directory).expect("remove the directory");
        assert_eq!(whole, Ok(Placement::new(&file)));
        assert_eq!(bound, Ok(Placement::new(&file).how(How::Bind)));
        assert_eq!(named, Ok(Placement::new(&file).named("x").read_only()));
    }

    #[test]
    fn a_wrong_option_is_named_with_those_there_are() {
        let wrong = parsed("/etc:rw");
        assert_eq!(wrong, Err("\"rw\" is no option; there are ro, bind, copy, link, node, reflink".into()));
        assert_eq!(parsed("/etc=x:ro:rw"), wrong);
        assert_eq!(parsed("/etc:bind:copy"), Err("only one of copy and bind can be".into()));
        let colon = "there is no such file; a name in the jail goes behind an equals sign: /etc=/x";
        assert_eq!(parsed("/etc:/x"), Err(colon.into()));
        assert_eq!(parsed("/etc:/x:ro"), Err(colon.into()));
        // Where nothing is, the path is what is wrong.
        assert_eq!(parsed("/no/such:rw"), Ok(Placement::new("/no/such:rw")));
    }
}
