//! The arguments of the VMM.

use std::ffi::{CString, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use stockade_syscalls::call::Argument as RawArgument;

use super::EntryError;
use crate::sys::error::{Context, Operation};

/// An argument of the VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Argument {
    /// A fixed text.
    Text(#[serde(with = "text")] OsString),
    /// The processor time of the process until the exec, in microseconds.
    CpuTime,
    /// The processor time of this process and those before it until the exec, in microseconds. Receipts have its name
    /// of version 0.1.
    #[serde(rename = "earlier-cpu-time")]
    ProgramCpuTime,
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&text.to_string_lossy()),
            Self::CpuTime | Self::ProgramCpuTime => f.write_str("MICROSECONDS"),
        }
    }
}

/// The argument in the form that a child passes to the exec.
pub(super) fn raw_argument(argument: &Argument) -> Result<RawArgument, EntryError> {
    Ok(match argument {
        Argument::Text(text) => {
            let text = CString::new(text.as_bytes()).map_err(|_| Errno::INVAL);
            RawArgument::Text(text.context(Operation::Spawn, argument)?)
        }
        Argument::CpuTime => RawArgument::CpuTime,
        Argument::ProgramCpuTime => RawArgument::ProgramCpuTime,
    })
}

/// An argument on a receipt: text, or bytes if it is not UTF-8.
mod text {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(text: &OsString, serializer: S) -> Result<S::Ok, S::Error> {
        match text.to_str() {
            Some(text) => text.serialize(serializer),
            None => text.as_bytes().serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OsString, D::Error> {
        Ok(match Either::deserialize(deserializer)? {
            Either::Text(text) => text.into(),
            Either::Bytes(bytes) => OsString::from_vec(bytes),
        })
    }
}
