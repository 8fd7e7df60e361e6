//! The nonce, which marks every object created for one receipt.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::clock::now_ms;

/// A random value that marks every object created for one receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(String);

impl Nonce {
    /// A new random value.
    #[expect(clippy::new_without_default, reason = "no two are equal, so there is no default")]
    pub fn new() -> Self {
        let mut bytes = [0_u8; 8];
        // The kernel's generator fails only before its first seed; a pid and a clock still differ.
        if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).is_err() {
            bytes = (u64::from(std::process::id()) ^ now_ms().rotate_left(32)).to_ne_bytes();
        }
        Self(format!("{:016x}", u64::from_ne_bytes(bytes)))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::is_one(text).then(|| Self(text.to_owned()))
    }

    /// Whether a text has the form of a nonce.
    pub(crate) fn is_one(text: &str) -> bool {
        text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
