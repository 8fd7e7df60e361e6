//! The JSON Schema of jail files, with which editors complete and check them.

#![cfg(test)]

use serde_json::{Map, Value, json};

use super::keys::{Key, Keys, Shape, flags_of, name};
use super::parse::{COUNT, DEFAULTS, JAIL, MAX_COUNT, Source};
use crate::flags::jail::JailCommand;
use crate::flags::run::RunArgs;

/// The path of the schema, relative to this package.
const SCHEMA: &str = "../../docs/schema/jail-file.json";

/// Generates the schema from the flags and their help.
fn schema() -> Value {
    let command = flags_of::<JailCommand<RunArgs>>();
    let help = |key: &Key| {
        let flag = command.get_arguments().find(|arg| name(arg) == key.name);
        flag.and_then(|flag| flag.get_help()).map(ToString::to_string).expect("every flag has its help")
    };
    let keys = Keys::all();
    let keys: Map<String, Value> =
        keys.iter().map(|key| (key.name.clone(), of_key(key, help(key)))).collect();
    let mut jail = keys.clone();
    let count = json!({
        "type": "integer", "minimum": 1, "maximum": MAX_COUNT,
        "description": "Number of jails that this table describes. In strings, {index} is the number of each, from 1.",
    });
    jail.insert(COUNT.to_owned(), count);
    let table = |keys: Map<String, Value>| json!({ "type": "object", "additionalProperties": false, "properties": keys });
    let mut one = table(jail);
    // No key is required: it may be in the defaults or a flag.
    one["description"] = "A jail, or `count` jails.".into();
    let mut defaults = table(keys);
    defaults["description"] = "Settings for every jail of the file.".into();
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "stockade jail file",
        "type": "object",
        "additionalProperties": false,
        "required": [JAIL],
        "properties": {
            DEFAULTS: defaults,
            JAIL: { "oneOf": [
                { "type": "array", "minItems": 1, "items": { "$ref": "#/definitions/jail" } },
                { "$ref": "#/definitions/jail" },
            ] },
        },
        "definitions": { "jail": one },
    })
}

fn of_key(key: &Key, help: String) -> Value {
    let mut schema = match key.shape {
        Shape::Switch => json!({ "type": "boolean" }),
        Shape::Single => single(),
        Shape::Duration => json!({ "type": ["string", "number"] }),
        Shape::Optional => json!({ "type": ["boolean", "string", "integer"] }),
        Shape::List => list(),
        Shape::Pairs => {
            json!({ "anyOf": [{ "type": "object", "additionalProperties": single() }, list()] })
        }
    };
    schema["description"] = help.into();
    schema
}

fn single() -> Value {
    json!({ "type": ["string", "integer"] })
}

fn list() -> Value {
    json!({ "type": "array", "items": single() })
}

/// Whether the schema and the command accept a file.
fn accepted(text: &str) -> (bool, bool) {
    let data: Value = toml::from_str(text).expect("TOML");
    let validator = jsonschema::validator_for(&schema()).expect("a schema");
    (validator.is_valid(&data), Source::of(text).parse(&Keys::all()).is_ok())
}

#[test]
fn schema_in_the_documentation_is_current() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(SCHEMA);
    let text = serde_json::to_string_pretty(&schema()).expect("JSON") + "\n";
    if std::env::var_os("STOCKADE_UPDATE").is_some() {
        std::fs::write(&path, &text).expect("write the schema");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, text, "STOCKADE_UPDATE=1 cargo test -p stockade-cli schema updates it");
}

#[test]
fn schema_accepts_files_that_the_command_accepts() {
    for text in [
        "[jail]\nid = 'a'",
        "[[jail]]\nid = 'a'\nexec-file = 'x'\nuid = 5\n[[jail]]\nuid = '10{index}'",
        "[defaults]\nnew-pid-ns = true\ngrace = 3\n[[jail]]\ncount = 20",
        "[[jail]]\ngrace = 0.5\ntimeout = '1m'\n[[jail]]\nuid = 'daemon'",
        "[[jail]]\ncgroup = { 'pids.max' = 64 }\nresource-limit = ['no-file=9']",
        "[[jail]]\nready = true\narguments = ['-m', 512]\n[[jail]]\nready = 'run/a'",
    ] {
        assert_eq!(accepted(text), (true, true), "{text}");
    }
}

#[test]
fn schema_refuses_files_that_the_command_refuses() {
    for text in [
        "",
        "jail = []",
        "[defaults]\n",
        "id = 'a'",
        "[[jail]]\ncgrop = []",
        "[defaults]\ncount = 2\n[[jail]]\n",
        "[[jail]]\ncount = 0",
        "[[jail]]\nnew-pid-ns = 'yes'",
        "[[jail]]\nuid = true",
        "[[jail]]\nplace = 'a'",
        "[[jail]]\nplace = { a = 'b' }",
        "[[jail]]\narguments = [true]",
        "[[jail]]\ncgroup = { 'pids.max' = [1] }",
        "[[jail]]\nready = 1.5",
        "[[jail]]\nuid = 1.5",
        "[[jail]]\ngrace = true",
        "[[jail]]\ndetach = true",
    ] {
        assert_eq!(accepted(text), (false, false), "{text}");
    }
}

#[test]
fn schema_accepts_all_documented_jail_files() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(root.join("examples")).expect("examples").flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "toml") {
            texts.push(std::fs::read_to_string(entry.path()).expect("an example"));
        }
    }
    let page = std::fs::read_to_string(root.join("docs/jail-files.md")).expect("a page");
    texts.extend(
        page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next().map(str::to_owned)),
    );
    assert!(texts.len() >= 3, "{texts:?}");
    for text in texts {
        assert_eq!(accepted(&text), (true, true), "{text}");
    }
}
