//! Jail files, for `run`, `create` and `plan`.
//!
//! Each jail of a file becomes an equivalent command line, which the flags beside `--file` override. So a jail from a
//! file is checked and created like any other.

mod keys;
mod level;
mod origin;
mod parse;
mod schema;

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::rc::Rc;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueHint, value_parser};

use stockade::spec::JailId;

use crate::errors::usage;
use crate::flags::jail::{JailArgs, JailCommand};
use crate::terminal::output::Failure;
#[cfg(test)]
pub(crate) use keys::check_keys_of;
use keys::{ARGUMENTS, Keys, flags_of, name};
use level::{Content, Level, Setting, Value};
use origin::Origin;
use parse::Source;

const FILE: &str = "file";
const ONLY: &str = "only";

/// The placeholder for the number of a jail of its table, from 1.
const INDEX: &str = "{index}";
/// The placeholder for the jail's id.
const ID: &str = "{id}";

/// The arguments of a command that takes one jail by flags, or several from files.
///
/// `T` has the command's own arguments for each jail.
#[derive(Debug)]
pub(crate) struct Described<T> {
    matches: ArgMatches,
    each: PhantomData<T>,
}

/// The arguments for one jail, and their origin.
#[derive(Debug)]
pub(crate) struct JailDescription<T: Args> {
    pub(crate) args: JailCommand<T>,
    origin: Origin,
}

impl<T: Args> JailDescription<T> {
    /// Adds the file and line of the mistake, if the jail is from a file.
    pub(crate) fn locate(&self, failure: Failure) -> Failure {
        self.origin.locate(failure)
    }
}

impl<T: Args> Described<T> {
    pub(crate) fn by_files(&self) -> bool {
        self.files().next().is_some()
    }

    /// Returns the jails in order; at least one.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or is invalid, with its line, or if a flag is ambiguous because there
    /// are several jails.
    pub(crate) fn jails(&self) -> Result<Vec<JailDescription<T>>, Failure> {
        if !self.by_files() {
            let args = JailCommand::from_arg_matches(&self.matches);
            let args = args.map_err(|e| Failure::new(usage::describe(&e, &flags_of::<JailCommand<T>>())))?;
            return Ok(vec![JailDescription { args, origin: Origin::Flags }]);
        }
        let drafts = self.chosen(drafts(self.files(), &Keys::all())?)?;
        let command = flags_of::<JailCommand<T>>();
        if let [_, second, ..] = &drafts[..] {
            self.check_common_flags(&command, drafts.len(), &second.source.name)?;
        }
        let keys = Keys::of(&command);
        let flags = self.flags(&command);
        let single = drafts.len() == 1;
        let complete: Vec<Draft> =
            drafts.into_iter().map(|draft| draft.overridden_by(&flags, &keys)).collect();
        check_distinct_ids(&complete)?;
        complete.into_iter().map(|draft| draft.describe(&command, &keys, single)).collect()
    }

    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.matches.get_many(FILE).into_iter().flatten()
    }

    /// Selects the jails of `--only`, or all without it.
    fn chosen(&self, drafts: Vec<Draft>) -> Result<Vec<Draft>, Failure> {
        let only: Vec<&String> = self.matches.get_many(ONLY).into_iter().flatten().collect();
        let ids: Vec<String> = drafts.iter().map(Draft::id_in_file).collect();
        if let Some(unknown) = only.iter().find(|only| !ids.contains(only)) {
            let some = ids[..ids.len().min(8)].join(", ");
            let more = if ids.len() > 8 { ", …" } else { "" };
            let text = format!("the files describe no jail '{unknown}'; use one of {some}{more}");
            return Err(Failure::flag(ONLY, text));
        }
        let all = drafts.into_iter().zip(ids);
        Ok(all.filter(|(_, id)| only.is_empty() || only.contains(&id)).map(|(draft, _)| draft).collect())
    }

    /// The level of the command line's flags.
    fn flags(&self, command: &Command) -> Level {
        let setting = |arg: &Arg| {
            let id = arg.get_id().as_str();
            let given = [Some(ValueSource::CommandLine), Some(ValueSource::EnvVariable)];
            if id == "help" || !given.contains(&self.matches.value_source(id)) {
                return None;
            }
            let values: Vec<Value> = match arg.get_action() {
                ArgAction::SetTrue => Vec::new(),
                _ => self.matches.get_raw(id).into_iter().flatten().map(Value::of_flag).collect(),
            };
            let content = if values.is_empty() { Content::Switch(true) } else { Content::Values(values) };
            Some((name(arg), Setting { line: None, content }))
        };
        Level(command.get_arguments().filter_map(setting).collect())
    }

    /// Refuses a flag that describes one jail if there are several. Flags with an environment variable name directories
    /// of the host and apply to all jails.
    fn check_common_flags(&self, command: &Command, many: usize, file: &str) -> Result<(), Failure> {
        let describing = flags_of::<JailArgs>();
        let of_jail = |arg: &&Arg| describing.get_arguments().any(|other| other.get_id() == arg.get_id());
        let given =
            |arg: &&Arg| self.matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
        match command.get_arguments().filter(of_jail).filter(|arg| arg.get_env().is_none()).find(given) {
            None => Ok(()),
            Some(arg) => {
                let name = name(arg);
                let flag = if name == ARGUMENTS { "--".to_owned() } else { format!("--{name}") };
                Err(Failure::new(format!(
                    "{flag}: ambiguous, because the files describe {many} jails; set `{name}` in '{file}' or select \
                     a jail with --only"
                )))
            }
        }
    }
}

impl<T: Args> FromArgMatches for Described<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let described = Self { matches: matches.clone(), each: PhantomData };
        if !described.by_files() {
            JailCommand::<T>::from_arg_matches(matches)?;
        }
        Ok(described)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<T: Args> Args for Described<T> {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new(FILE)
            .short('f')
            .long(FILE)
            .value_name("FILE")
            .value_hint(ValueHint::FilePath)
            .value_parser(value_parser!(PathBuf))
            .action(ArgAction::Append)
            .help("Read the jails from a file, or from stdin with - (repeatable)");
        let only = Arg::new(ONLY)
            .long(ONLY)
            .value_name("ID")
            .action(ArgAction::Append)
            .requires(FILE)
            .help("Use only this jail of the files (repeatable)");
        // The file has the required settings.
        let relax = |arg: Arg| {
            if arg.is_required_set() { arg.required(false).required_unless_present(FILE) } else { arg }
        };
        JailCommand::<T>::augment_args(command).mut_args(relax).arg(file).arg(only)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The ids and the state directory of the jails in files.
#[derive(Debug)]
pub(crate) struct NamedJails {
    pub(crate) ids: Vec<JailId>,
    /// The state directory, if the files name one.
    pub(crate) state_dir: Option<PathBuf>,
}

impl NamedJails {
    /// Reads the ids of the jails in files.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or is invalid, with its line.
    pub(crate) fn in_files(files: &[PathBuf]) -> Result<Self, Failure> {
        let keys = Keys::all();
        let drafts = drafts(files.iter(), &keys)?.into_iter();
        let drafts: Vec<Draft> = drafts.map(|draft| draft.overridden_by(&Level::default(), &keys)).collect();
        check_distinct_ids(&drafts)?;
        let ids = drafts.iter().map(Draft::id).collect::<Result<_, _>>()?;
        let directory = |draft: &Draft| draft.level.single("state-dir").cloned();
        let state_dir = drafts.first().and_then(directory).map(|value| value.text);
        match drafts.iter().find(|draft| directory(draft).map(|value| value.text) != state_dir) {
            None => Ok(Self { ids, state_dir: state_dir.map(PathBuf::from) }),
            Some(other) => {
                let line = directory(other).and_then(|value| value.line).unwrap_or(other.line);
                let what = "the jails are in several state directories; name them by their ids";
                Err(other.source.error_at(line, &format!("state-dir: {what}")))
            }
        }
    }
}

/// Reads a draft for each jail in files, without the flags of the command line.
fn drafts<'a>(files: impl Iterator<Item = &'a PathBuf>, keys: &Keys) -> Result<Vec<Draft>, Failure> {
    let mut drafts = Vec::new();
    for file in files {
        let source = Rc::new(Source::read(file)?);
        let parsed = source.parse(keys)?;
        for table in parsed.jails {
            let level = parsed.defaults.clone().overridden_by(&table.level, keys);
            let many = table.count.map_or(1, |(number, _)| number);
            drafts.extend((1..=many).map(|index| Draft {
                source: Rc::clone(&source),
                line: table.line,
                count_line: table.count.map(|(_, line)| line),
                index,
                level: level.clone(),
            }));
        }
    }
    Ok(drafts)
}

/// An unchecked jail from a file.
struct Draft {
    source: Rc<Source>,
    /// The first line of the jail's table.
    line: usize,
    count_line: Option<usize>,
    /// The number of this jail among those of its table, from 1.
    index: usize,
    level: Level,
}

impl Draft {
    /// Applies the flags of the command line and replaces every placeholder.
    fn overridden_by(self, flags: &Level, keys: &Keys) -> Self {
        let index = self.index.to_string();
        let level = self.level.overridden_by(flags, keys).map_texts(|text| text.replace(INDEX, &index));
        let level = match level.single("id").map(|id| id.text.to_string_lossy().into_owned()) {
            Some(id) => level.map_texts(|text| text.replace(ID, &id)),
            None => level,
        };
        Self { level, ..self }
    }

    /// The id in the file; empty if it has none.
    fn id_in_file(&self) -> String {
        let text = self.level.single("id").map(|id| id.text.to_string_lossy().into_owned());
        text.unwrap_or_default().replace(INDEX, &self.index.to_string())
    }

    fn id(&self) -> Result<JailId, Failure> {
        let Some(id) = self.level.single("id") else {
            return Err(self.source.error_at(self.line, "the jail needs `id`"));
        };
        let line = id.line.unwrap_or(self.line);
        let parsed: Result<JailId, _> = id.text.to_string_lossy().parse();
        parsed.map_err(|error| self.source.error_at(line, &format!("id: {error}")))
    }

    fn describe<T: Args>(
        self,
        command: &Command,
        keys: &Keys,
        single: bool,
    ) -> Result<JailDescription<T>, Failure> {
        let arguments = self.level.arguments(|name| keys.get(name).is_some());
        let parsed = command.clone().try_get_matches_from(arguments);
        let args = parsed.and_then(|matches| JailCommand::from_arg_matches(&matches));
        let id = self.level.single("id").map(|id| id.text.to_string_lossy().into_owned());
        let origin = Origin::File {
            source: self.source,
            line: self.line,
            level: self.level,
            id: id.filter(|_| !single),
        };
        match args {
            Ok(args) => Ok(JailDescription { args, origin }),
            Err(error) => Err(origin.explain(command, &error)),
        }
    }
}

/// Refuses two jails with one id. The library allows one id in different state directories, but here it is a mistake.
fn check_distinct_ids(drafts: &[Draft]) -> Result<(), Failure> {
    let mut taken: BTreeMap<_, &Draft> = BTreeMap::new();
    for draft in drafts {
        let Some(id) = draft.level.single("id") else { continue };
        let Some(earlier) = taken.insert(&id.text, draft) else { continue };
        let (text, line) = (id.text.display(), id.line.unwrap_or(draft.line));
        let same_table = Rc::ptr_eq(&earlier.source, &draft.source) && earlier.line == draft.line;
        let (line, what) = if let Some(line) = draft.count_line.filter(|_| same_table) {
            let fix = format!("use {{index}} in `id`, as in \"{text}-{{index}}\"");
            (line, format!("`count`: each jail needs a unique id; {fix}"))
        } else {
            let earlier = format!("{}:{}", earlier.source.name, earlier.line);
            (line, format!("id: '{text}' is already the id of the jail in {earlier}"))
        };
        return Err(draft.source.error_at(line, &what));
    }
    Ok(())
}
