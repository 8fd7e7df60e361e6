//! Flags that several commands share, and their values.

pub(crate) mod duration;
pub(crate) mod exec;
pub(crate) mod jail;
pub(crate) mod lookup;
pub(crate) mod placement;
pub(crate) mod ready;
pub(crate) mod run;
pub(crate) mod state;
