//! One file or directory for each command.

pub(crate) mod audit;
pub(crate) mod completions;
pub(crate) mod create;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod gc;
pub(crate) mod host_setup;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod place;
pub(crate) mod plan;
pub(crate) mod profiles;
pub(crate) mod ps;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod shell;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod top;
pub(crate) mod unplace;
pub(crate) mod version;
pub(crate) mod wait;
