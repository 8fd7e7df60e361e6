//! Several jails of one command: all or none are created, and they are supervised together.

pub(crate) mod fd_limit;
pub(crate) mod launch;
pub(crate) mod multiplex;
pub(crate) mod orphans;
pub(crate) mod request;
pub(crate) mod service_manager;
pub(crate) mod stop;
pub(crate) mod supervise;
pub(crate) mod template_mounts;
pub(crate) mod vmm_output;
