//! The names of files and directories that stockade creates beside those of others.

use std::fmt::Display;

use crate::spec::Nonce;

const PREFIX: &str = ".stockade-";

/// The name of something that belongs to the jail with this nonce.
pub(crate) fn own_name(nonce: &Nonce) -> String {
    temporary_name(nonce)
}

/// Whether this is the own name of a jail.
pub(crate) fn is_own_name(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(Nonce::is_one)
}

/// A name for something that exists only for a moment.
///
/// # Arguments
/// `unique` distinguishes it from the names of other processes and jails.
pub(crate) fn temporary_name(unique: impl Display) -> String {
    format!("{PREFIX}{unique}")
}
