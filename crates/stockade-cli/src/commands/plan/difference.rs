//! The differences between an existing jail and the requested one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};
use stockade::Receipt;
use stockade::spec::{JailSpec, Netns};
use stockade::steps::Step;

/// One differing fact.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// The key in a jail file, or `place` and the path in the jail.
    field: String,
    /// `None` if the jail lacks it.
    is: Option<String>,
    would_be: Option<String>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(f, "{}: {} → {}", self.field, shown(&self.is), shown(&self.would_be))
    }
}

/// The differences between the jail of a receipt and a specification with its placements.
pub(crate) fn differences(receipt: &Receipt, spec: &JailSpec, placed: &[Step]) -> Vec<Difference> {
    // The steps behind `receipt.made` are the placements: later ones and those of the profile too.
    let mut is = facts(&receipt.spec, receipt.steps.get(receipt.made..).unwrap_or_default());
    let mut would_be = facts(spec, placed);
    let fields: BTreeSet<String> = is.keys().chain(would_be.keys()).cloned().collect();
    let both = fields.into_iter().map(|field| {
        let (is, would_be) = (is.remove(&field), would_be.remove(&field));
        Difference { field, is, would_be }
    });
    both.filter(|difference| difference.is != difference.would_be).collect()
}

/// Each fact by its field. A new field of the specification is compared without a change here.
fn facts(spec: &JailSpec, placed: &[Step]) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    if let Ok(Value::Object(fields)) = serde_json::to_value(spec) {
        collect("", &fields, &mut facts);
    }
    // The time of the request is not part of the jail.
    facts.remove("started-us");
    // The limit itself is compared.
    facts.remove("limits.open-files-requested");
    // The serialised form is a list of bytes.
    let arguments: Vec<_> = spec.arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    facts.insert("arguments".to_owned(), format!("{arguments:?}"));
    let cgroups: Vec<String> = spec.cgroups.iter().map(ToString::to_string).collect();
    facts.insert("cgroup".to_owned(), format!("{cgroups:?}"));
    let libraries = spec.libraries.files.iter().map(|file| file.source.to_string()).collect::<Vec<_>>();
    facts.insert("libraries".to_owned(), format!("{libraries:?}"));
    // A network namespace of the existing jail would be joined by now, so the serialised forms differ.
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

/// The key in a jail file of a field of the specification; the field's own name if it has none.
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

/// The field and value of a placement. The method and the inode are omitted: they may differ by chance.
fn placement(step: &Step) -> Option<(String, String)> {
    let described = |path: &dyn std::fmt::Display, value: String, read_only: bool| {
        (format!("place {path}"), format!("{value}{}", if read_only { ", read-only" } else { "" }))
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
            let device = format!("device {}:{}, owner {}", step.major, step.minor, step.owner);
            Some(described(&step.path, device, step.read_only))
        }
        _ => None,
    }
}
