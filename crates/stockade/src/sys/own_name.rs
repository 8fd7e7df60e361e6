//! The names of files and directories that stockade creates beside those of others.

use crate::spec::Nonce;

const PREFIX: &str = ".stockade-";

/// The name of something that belongs to the jail with this nonce.
pub(crate) fn own_name(nonce: &Nonce) -> String {
    format!("{PREFIX}{nonce}")
}

/// A new random name for a temporary file in a jail's tree.
///
/// The jail's uid sees it as soon as it exists, and must not know it before.
pub(crate) fn temporary_name() -> String {
    own_name(&Nonce::new())
}

/// Whether this is the own name of a jail, or a temporary name in its tree.
pub(crate) fn is_own_name(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(Nonce::is_one)
}
