//! Inherited attributes on a receipt, by name.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};
use stockade_syscalls::inherited::Attribute;

pub(super) fn serialize<S: Serializer>(all: &[Attribute], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(all.iter().map(|attribute| attribute.name()))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Attribute>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let named = |name: &String| {
        Attribute::named(name).ok_or_else(|| D::Error::custom(format!("unknown attribute {name:?}")))
    };
    names.iter().map(named).collect()
}
