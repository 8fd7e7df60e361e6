//! The life of a jail: each file contains one state or transition.

mod adopt;
mod become_vmm;
mod bulk;
mod create;
mod exec;
mod exec_process;
mod exec_program;
mod foreign_mounts;
mod gc;
mod launch;
mod locked;
mod namespaces;
mod open;
mod placement;
mod pool;
mod ready;
mod running;
mod stop;
mod teardown;

pub use adopt::{AdoptOptions, AdoptSpec, Adopted};
pub use become_vmm::{become_vmm, close_inherited};
pub use bulk::{teardown_all, teardown_all_with_progress};
pub use create::Created;
pub use exec::{EXEC_PATH, Exec};
pub use exec_process::ExecProcess;
pub use gc::Collection;
pub use launch::Streams;
pub use open::{Jail, Stopped, VmmHandle};
pub use pool::JailPool;
pub use running::Running;
pub use stop::{stop_all, stop_all_with_notes};
pub use teardown::{Leftover, Report, TeardownOptions};
