//! The life of a jail, one state or transition a file.

mod adopt;
mod become_vmm;
mod bulk;
mod exec;
mod exec_process;
mod foreign_mounts;
mod gc;
mod launch;
mod open;
mod placement;
mod pool;
mod prepare;
mod ready;
mod running;
mod stop;
mod teardown;

pub use adopt::{AdoptSpec, Adopted, Wants};
pub use become_vmm::{close_inherited, enter_in_place};
pub use bulk::{teardown_all, teardown_all_with_progress};
pub use exec::{VISITOR_PATH, Visit};
pub use exec_process::Visitor;
pub use gc::Collection;
pub use launch::Streams;
pub use open::{Dead, Jail, Watched};
pub use pool::JailPool;
pub use prepare::Prepared;
pub use running::Running;
pub use stop::stop_all;
pub use teardown::{Leftover, Report, TeardownOptions};
