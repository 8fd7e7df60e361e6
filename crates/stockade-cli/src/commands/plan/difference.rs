//! In what a jail that exists differs from what is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};
use stockade::Receipt;
use stockade::spec::{JailSpec, Netns};
use stockade::steps::Step;

/// One fact that differs.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// As its key in a jail file is called, or `place` and the path in the jail.
    field: String,
    /// `None` where the jail has nothing of the kind.
    is: Option<String>,
    would_be: Option<String>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(f, "{}: {} → {}", self.field, shown(&self.is), shown(&self.would_be))
    }
}

/// In what the jail of a receipt differs from a specification, and from what would be placed.
pub(crate) fn differences(receipt: &Receipt, spec: &JailSpec, placed: &[Step]) -> Vec<Difference> {
    // What was placed later than the jail was made is among it, as is what its profile wants.
    let mut is = facts(&receipt.spec, receipt.steps.get(receipt.made..).unwrap_or_default());
    let mut would_be = facts(spec, placed);
    let fields: BTreeSet<String> = is.keys().chain(would_be.keys()).cloned().collect();
    let both = fields.into_iter().map(|field| {
        let (is, would_be) = (is.remove(&field), would_be.remove(&field));
        Difference { field, is, would_be }
    });
    both.filter(|difference| difference.is != difference.would_be).collect()
}

/// Every fact by its field. Whatever a specification comes to hold is compared.
fn facts(spec: &JailSpec, placed: &[Step]) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    if let Ok(Value::Object(fields)) = serde_json::to_value(spec) {
        collect("", &fields, &mut facts);
    }
    // When it was asked for is no part of what it is to be.
    facts.remove("started-us");
    // Bytes to a program, words to a person.
    let arguments: Vec<_> = spec.arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    facts.insert("arguments".to_owned(), format!("{arguments:?}"));
    let cgroups: Vec<String> = spec.cgroups.iter().map(ToString::to_string).collect();
    facts.insert("cgroup".to_owned(), format!("{cgroups:?}"));
    let libraries = spec.libraries.files.iter().map(|file| file.source.to_string()).collect::<Vec<_>>();
    facts.insert("libraries".to_owned(), format!("{libraries:?}"));
    // A namespace that the jail has made is one to join for whoever looks now.
    facts.retain(|field, _| !field.starts_with("netns"));
    facts.insert("netns".to_owned(), netns(&spec.netns));
    facts.extend(placed.iter().filter_map(placement));
    facts
}

fn collect(before: &str, fields: &Map<String, Value>, facts: &mut BTreeMap<String, String>) {
    for (name, value) in fields {
        let field = field(&format!("{before}{name}"));
        match value {
            Value::Null => (),
            Value::Object(below) => collect(&format!("{field}."), below, facts),
            Value::String(text) => drop(facts.insert(field, text.clone())),
            other => drop(facts.insert(field, other.to_string())),
        }
    }
}

/// The key that a field of a specification has in a jail file, where there is one.
fn field(name: &str) -> String {
    match name {
        "exec_file.path" | "exec-file.path" => "exec-file".to_owned(),
        "owner.uid" => "uid".to_owned(),
        "owner.gid" => "gid".to_owned(),
        "base" => "chroot-base-dir".to_owned(),
        "cgroups" => "cgroup".to_owned(),
        "closure" => "libraries".to_owned(),
        "profile.name" => "profile".to_owned(),
        "limits.open_files" => "resource-limit no-file".to_owned(),
        "limits.file_size" => "resource-limit fsize".to_owned(),
        other => other.replace('_', "-"),
    }
}

fn netns(netns: &Netns) -> String {
    match netns {
        Netns::Host => "the host's".to_owned(),
        Netns::New => "a new one".to_owned(),
        Netns::Make(name) => name.path().to_string(),
        Netns::Join(path) => path.to_string(),
    }
}

/// Where something is placed, and what. How a file got there, and as which inode, may differ by chance.
fn placement(step: &Step) -> Option<(String, String)> {
    let described = |path: &dyn std::fmt::Display, what: String, read_only: bool| {
        (format!("place {path}"), format!("{what}{}", if read_only { ", read-only" } else { "" }))
    };
    let file = |source: &dyn AsRef<Path>| source.as_ref().display().to_string();
    match step {
        Step::PlacedFile(step) => Some(described(
            &step.path,
            format!("{}, owner {}", file(&step.source), step.owner),
            step.read_only,
        )),
        Step::PlacedTree(step) => Some(described(
            &step.path,
            format!("{}, owner {}", file(&step.source), step.owner),
            step.read_only,
        )),
        Step::Bind(step) => {
            Some(described(&step.path, format!("{}, bound", file(&step.source)), step.read_only))
        }
        Step::DeviceNode(step) => {
            let what = format!("device {}:{}, owner {}", step.major, step.minor, step.owner);
            Some(described(&step.path, what, step.read_only))
        }
        _ => None,
    }
}
