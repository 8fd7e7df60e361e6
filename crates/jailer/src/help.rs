//! `--help` and `--version`.

use std::fmt::Write;

use crate::flags::{FLAGS, Flag};

pub(crate) fn version() -> String {
    format!("Jailer v{}\n\n", env!("CARGO_PKG_VERSION"))
}

pub(crate) fn text() -> String {
    let mut text = version();
    for (title, required) in [("required arguments:", true), ("optional arguments:", false)] {
        let _ = writeln!(text, "{title}");
        let flags: Vec<&Flag> = FLAGS.iter().filter(|flag| flag.required == required).collect();
        let width = flags.iter().map(|flag| left(flag).len()).max().unwrap_or_default();
        for flag in flags {
            let default = flag.default.map_or(String::new(), |value| format!(" [default: {value:?}]"));
            let _ = writeln!(text, "  {:width$}   {}{default}", left(flag), flag.help);
        }
        text.push('\n');
    }
    text.push_str("Any arguments after the -- separator will be supplied to the jailed binary.\n\n");
    text
}

/// A flag with its value's name.
fn left(flag: &Flag) -> String {
    if flag.has_value { format!("--{0} <{0}>", flag.name) } else { format!("--{}", flag.name) }
}
