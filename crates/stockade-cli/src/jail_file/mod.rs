//! Jails that files describe, for `run`, `create` and `plan`: each is turned into the command line that says the
//! same, with the flags beside `--file` over it, and so is checked and carried out as any other.

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

/// What stands for the number of a jail among those of its table.
const INDEX: &str = "{index}";
/// What stands for its id.
const ID: &str = "{id}";

/// The arguments of a command, for each jail with those of type `T`: one jail by flags, or those that files describe.
#[derive(Debug)]
pub(crate) struct Described<T> {
    matches: ArgMatches,
    each: PhantomData<T>,
}

/// What a command is asked to do with one jail.
#[derive(Debug)]
pub(crate) struct JailDescription<T: Args> {
    pub(crate) args: JailCommand<T>,
    origin: Origin,
}

impl<T: Args> JailDescription<T> {
    /// Says where in the file the mistake is, if the jail is from one.
    pub(crate) fn locate(&self, failure: Failure) -> Failure {
        self.origin.locate(failure)
    }
}

impl<T: Args> Described<T> {
    /// Whether files describe the jails, one or many.
    pub(crate) fn by_files(&self) -> bool {
        self.files().next().is_some()
    }

    /// What is asked for of each jail, in order; at least one.
    ///
    /// # Errors
    /// What cannot be read or understood, in which line; and flags that might mean any of several jails.
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
        let alone = drafts.len() == 1;
        let whole: Vec<Draft> = drafts.into_iter().map(|draft| draft.overridden_by(&flags, &keys)).collect();
        check_distinct_ids(&whole)?;
        whole.into_iter().map(|draft| draft.describe(&command, &keys, alone)).collect()
    }

    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.matches.get_many(FILE).into_iter().flatten()
    }

    /// Those of the jails that the command is to work on: all, unless some are named.
    fn chosen(&self, drafts: Vec<Draft>) -> Result<Vec<Draft>, Failure> {
        let only: Vec<&String> = self.matches.get_many(ONLY).into_iter().flatten().collect();
        let ids: Vec<String> = drafts.iter().map(Draft::id_in_file).collect();
        if let Some(unknown) = only.iter().find(|only| !ids.contains(only)) {
            let some = ids[..ids.len().min(8)].join(", ");
            let more = if ids.len() > 8 { ", …" } else { "" };
            let text = format!("the files describe no jail {unknown}: there are {some}{more}");
            return Err(Failure::flag(ONLY, text));
        }
        let all = drafts.into_iter().zip(ids);
        Ok(all.filter(|(_, id)| only.is_empty() || only.contains(&id)).map(|(draft, _)| draft).collect())
    }

    /// What the command line says beside the files.
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

    /// Refuses a flag that describes a jail where there are many; where things are on the host holds for all.
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
                    "{flag}: the files describe {many} jails, and it is said of none: write `{name}` into {file}, or choose \
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
            .help("Take the jails from a file, or from stdin by - (repeatable)");
        let only = Arg::new(ONLY)
            .long(ONLY)
            .value_name("ID")
            .action(ArgAction::Append)
            .requires(FILE)
            .help("Of the jails of a file only this one (repeatable)");
        // What a jail needs is in the file.
        let relax = |arg: Arg| {
            if arg.is_required_set() { arg.required(false).required_unless_present(FILE) } else { arg }
        };
        JailCommand::<T>::augment_args(command).mut_args(relax).arg(file).arg(only)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// What files say of where their jails are.
#[derive(Debug)]
pub(crate) struct NamedJails {
    pub(crate) ids: Vec<JailId>,
    /// The state directory, if they name one.
    pub(crate) state_dir: Option<PathBuf>,
}

impl NamedJails {
    /// The jails that files describe, by their names alone.
    ///
    /// # Errors
    /// What cannot be read or understood, in which line.
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
                let what = "the jails are in several state directories: name them by their ids";
                Err(other.source.error_at(line, &format!("state-dir: {what}")))
            }
        }
    }
}

/// What files say, a draft for each jail, without what else there is to be said.
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

/// A jail as a file describes it, not checked yet.
struct Draft {
    source: Rc<Source>,
    /// Where its table begins.
    line: usize,
    count_line: Option<usize>,
    /// Which of those that its table stands for.
    index: usize,
    level: Level,
}

impl Draft {
    /// The draft with the flags of the command line over it, and every placeholder replaced.
    fn overridden_by(self, flags: &Level, keys: &Keys) -> Self {
        let index = self.index.to_string();
        let level = self.level.overridden_by(flags, keys).map_texts(|text| text.replace(INDEX, &index));
        let level = match level.single("id").map(|id| id.text.to_string_lossy().into_owned()) {
            Some(id) => level.map_texts(|text| text.replace(ID, &id)),
            None => level,
        };
        Self { level, ..self }
    }

    /// The id, as far as the file says it.
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
        alone: bool,
    ) -> Result<JailDescription<T>, Failure> {
        let words = self.level.words(|name| keys.get(name).is_some());
        let parsed = command.clone().try_get_matches_from(words);
        let args = parsed.and_then(|matches| JailCommand::from_arg_matches(&matches));
        let id = self.level.single("id").map(|id| id.text.to_string_lossy().into_owned());
        let origin = Origin::File {
            source: self.source,
            line: self.line,
            level: self.level,
            id: id.filter(|_| !alone),
        };
        match args {
            Ok(args) => Ok(JailDescription { args, origin }),
            Err(error) => Err(origin.explain(command, &error)),
        }
    }
}

/// Refuses two jails of one id. One id in different state directories is two jails to the library, and a mistake
/// to everybody else.
fn check_distinct_ids(drafts: &[Draft]) -> Result<(), Failure> {
    let mut taken: BTreeMap<_, &Draft> = BTreeMap::new();
    for draft in drafts {
        let Some(id) = draft.level.single("id") else { continue };
        let Some(earlier) = taken.insert(&id.text, draft) else { continue };
        let (text, line) = (id.text.display(), id.line.unwrap_or(draft.line));
        let same_table = Rc::ptr_eq(&earlier.source, &draft.source) && earlier.line == draft.line;
        let (line, what) = if let Some(line) = draft.count_line.filter(|_| same_table) {
            let way_out = format!("put {{index}} into `id`, as in \"{text}-{{index}}\"");
            (line, format!("`count`: each jail needs an id of its own: {way_out}"))
        } else {
            let earlier = format!("{}:{}", earlier.source.name, earlier.line);
            (line, format!("id: {text} is that of the jail in {earlier} already"))
        };
        return Err(draft.source.error_at(line, &what));
    }
    Ok(())
}
