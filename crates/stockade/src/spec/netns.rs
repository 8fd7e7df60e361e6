//! The network namespace of a jail.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{HostPath, SpecError};

/// The directory of named network namespaces, as `ip netns` uses it.
pub const NETNS_DIRECTORY: &str = "/run/netns";

/// The name of a network namespace: one plain path component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NetnsName(String);

impl NetnsName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The namespace's file in [`NETNS_DIRECTORY`].
    pub fn path(&self) -> HostPath {
        Path::new(NETNS_DIRECTORY).join(&self.0).into()
    }
}

impl FromStr for NetnsName {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let bad = text.is_empty() || text.len() > 255 || text.starts_with('.') || text.contains(['/', '\0']);
        if bad { Err(SpecError::NetnsName(text.to_owned())) } else { Ok(Self(text.to_owned())) }
    }
}

impl fmt::Display for NetnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The network namespace of a jail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Netns {
    /// The namespace of stockade itself.
    #[default]
    Host,
    /// A new namespace without a name, which exists as long as the VMM.
    New,
    /// A new named namespace, created and removed with the jail.
    Make(NetnsName),
    /// An existing namespace, which remains unchanged.
    Join(HostPath),
}

impl Netns {
    /// Parses a path or a name.
    ///
    /// With a slash in it, `argument` is the path of a namespace to join. Without, it is a name: an existing namespace
    /// is joined, a missing one is created.
    ///
    /// # Errors
    /// * [`SpecError::NotFound`] if the path does not exist
    /// * [`SpecError::NetnsName`] if the name is not one plain component
    pub fn from_argument(argument: &str) -> Result<Self, SpecError> {
        if argument.contains('/') {
            return Ok(Self::Join(HostPath::existing(Path::new(argument))?));
        }
        let name: NetnsName = argument.parse()?;
        Ok(if name.path().as_path().exists() { Self::Join(name.path()) } else { Self::Make(name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_component() {
        for bad in ["", "..", ".hidden", "a/b"] {
            assert!(bad.parse::<NetnsName>().is_err(), "{bad:?}");
        }
        assert_eq!("vm-1".parse::<NetnsName>().expect("a plain name").path().to_string(), "/run/netns/vm-1");
    }

    #[test]
    fn a_path_must_exist() {
        let missing = Netns::from_argument("/run/netns/stockade-no-such-namespace");
        assert!(matches!(missing, Err(SpecError::NotFound(..))), "{missing:?}");
    }
}
