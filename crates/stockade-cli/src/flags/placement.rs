//! Placements on the command line: `SRC[=NAME][:OPTION]...`.

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

/// The option that is not a placement method.
const READ_ONLY: &str = "ro";

/// Parses an argument.
///
/// An existing file wins: if its name contains `=` or `:`, the whole name counts. Otherwise the last `=` and the
/// options behind it count.
///
/// # Arguments
/// `base` makes the placement of a source, which the options then change.
///
/// # Errors
/// Returns the cause, without the argument.
pub(crate) fn parse(argument: &OsStr, base: &impl Fn(&Path) -> Placement) -> Result<Placement, String> {
    let (rest, options) = split_options(argument.as_bytes())?;
    let (source, name) = split_name(rest);
    check_no_colon(source)?;
    name.map_or(Ok(()), |name| check_not_directory(source, name))?;
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
                let method = method.unwrap_or_default();
                return Err(format!("options '{method}' and '{how}' exclude each other; use one"));
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
        let text = String::from_utf8_lossy(&rest[at + 1..]);
        match known(&text) {
            Some(option) => options.push(option),
            // The colon belongs to the name of a missing file: the path is the error, not the option.
            None if !split_name(&rest[..at]).0.exists() => break,
            None => return Err(format!("unknown option '{text}'; use one of {}", names().join(", "))),
        }
        rest = &rest[..at];
    }
    Ok((rest, options))
}

fn known(option: &str) -> Option<&'static str> {
    names().into_iter().find(|name| *name == option)
}

fn names() -> [&'static str; 7] {
    [READ_ONLY, "bind", "copy", "link", "node", "reflink", "share"]
}

/// Splits `SRC=NAME` at the last `=`, unless a file has that whole name.
fn split_name(argument: &[u8]) -> (&Path, Option<&Path>) {
    let split = argument.iter().rposition(|byte| *byte == b'=').filter(|_| !path(argument).exists());
    match split {
        Some(at) => (path(&argument[..at]), Some(path(&argument[at + 1..]))),
        None => (path(argument), None),
    }
}

/// Refuses the `SRC:NAME` of other tools, if only the part before a colon exists.
fn check_no_colon(source: &Path) -> Result<(), String> {
    let bytes = source.as_os_str().as_bytes();
    let colon = bytes.iter().position(|byte| *byte == b':').filter(|_| !source.exists());
    let Some(at) = colon.filter(|at| path(&bytes[..*at]).exists()) else { return Ok(()) };
    let (before, after) = (path(&bytes[..at]).display(), path(&bytes[at + 1..]).display());
    Err(format!("no such file; a name in the jail follows '=', as in '{before}={after}'"))
}

/// Refuses a name that ends with a slash for a file, which would not go into that directory but take its name.
fn check_not_directory(source: &Path, name: &Path) -> Result<(), String> {
    if !name.as_os_str().as_bytes().ends_with(b"/") || source.is_dir() {
        return Ok(());
    }
    let file = name.join(source.file_name().unwrap_or_default());
    Err(format!("'{}' names a directory; name the file, as in '{}'", name.display(), file.display()))
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// Refuses two placements with one target, and invalid sources and targets.
///
/// # Arguments
/// `flag_of` is the flag of a placement; `None` for positional arguments.
pub(crate) fn check_distinct(
    placements: &[Placement],
    flag_of: impl Fn(&Placement) -> Option<&'static str>,
) -> Result<(), Failure> {
    let mut taken = BTreeMap::new();
    for placement in placements {
        let (source, flag) = (placement.source(), flag_of(placement));
        let target = placement.target().map_err(|error| not_placed(flag, source, &error))?;
        if let Some(earlier) = taken.insert(target.clone(), source) {
            return Err(placement_failure(
                flag,
                source,
                &format!(
                    "'{target}' is already the path of '{}' in the jail; choose another name",
                    earlier.display()
                ),
            ));
        }
    }
    Ok(())
}

/// Performs a placement, with a progress bar if it takes long.
///
/// A signal stops it.
///
/// # Arguments
/// `flag` is the flag of the placement; `None` for a positional argument.
pub(crate) fn place_one(
    placement: &Placement,
    flag: Option<&str>,
    signals: &SignalFd,
    place: impl FnOnce(Placement, &mut OnProgress<'_>) -> stockade::Result<Placed>,
) -> Result<Placed, Failure> {
    let source = placement.source();
    let before = format!("'{}' was placed", source.display());
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

/// Reports the privileges that the host's file has and the jail's file lacks.
pub(crate) fn report_stripped(stripped: &Stripped) {
    info(&format!("placed without {stripped}"));
}

pub(crate) fn not_placed(flag: Option<&str>, source: &Path, error: &dyn std::fmt::Display) -> Failure {
    placement_failure(flag, source, &error.to_string())
}

pub(crate) fn placement_failure(flag: Option<&str>, source: &Path, cause: &str) -> Failure {
    let source = source.display().to_string();
    match flag {
        Some(flag) => {
            let what = Some(source).filter(|source| !source.is_empty());
            Failure::Flag { flag: flag.to_owned(), what, text: cause.to_owned() }
        }
        None if source.is_empty() => Failure::new(cause),
        None => Failure::new(format!("{source}: {cause}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(argument: &str) -> Result<Placement, String> {
        parse(OsStr::new(argument), &|source| Placement::new(source))
    }

    #[test]
    fn a_name_follows_the_last_equals_sign_and_options_follow_it() {
        let disk = || Placement::new("/no/such=file").named("disk.img");
        assert_eq!(parsed("/no/such=file=disk.img"), Ok(disk()));
        assert_eq!(parsed("/no/such=file=disk.img:ro"), Ok(disk().read_only()));
        assert_eq!(parsed("/no/such=file=disk.img:ro:bind"), Ok(disk().read_only().how(How::Bind)));
        assert_eq!(parsed("/etc:copy"), Ok(Placement::new("/etc").how(How::Copy)));
    }

    #[test]
    fn every_method_is_an_option() {
        for how in How::NAMED {
            assert_eq!(parsed(&format!("/etc:{how}")), Ok(Placement::new("/etc").how(how)));
        }
    }

    #[test]
    fn a_file_keeps_every_character_of_its_name() {
        let directory = std::env::temp_dir().join(format!("stockade-placements-{}", std::process::id()));
        std::fs::create_dir(&directory).expect("create a directory");
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
    fn a_name_with_a_slash_at_its_end_is_for_directories() {
        let directory = "'/data/' names a directory; name the file, as in '/data/passwd'";
        assert_eq!(parsed("/etc/passwd=/data/:ro"), Err(directory.into()));
        assert_eq!(parsed("/etc=/data/"), Ok(Placement::new("/etc").named("/data/")));
    }

    #[test]
    fn a_wrong_option_is_refused_with_the_list_of_options() {
        let wrong = parsed("/etc:rw");
        assert_eq!(
            wrong,
            Err("unknown option 'rw'; use one of ro, bind, copy, link, node, reflink, share".into())
        );
        assert_eq!(parsed("/etc=x:ro:rw"), wrong);
        assert_eq!(
            parsed("/etc:bind:copy"),
            Err("options 'copy' and 'bind' exclude each other; use one".into())
        );
        let colon = "no such file; a name in the jail follows '=', as in '/etc=/x'";
        assert_eq!(parsed("/etc:/x"), Err(colon.into()));
        assert_eq!(parsed("/etc:/x:ro"), Err(colon.into()));
        // A missing file is the error, not the option.
        assert_eq!(parsed("/no/such:rw"), Ok(Placement::new("/no/such:rw")));
    }
}
