//! A program in a jail, from creation to removal. Run as root:
//!
//!     cargo run --package stockade --example minimal

use stockade::spec::JailSpec;
use stockade::{Store, Streams};

fn main() -> stockade::Result<()> {
    // Any program can be the VMM; this one prints its uid and gid. Its shared libraries are placed too.
    let id = format!("minimal-{}", std::process::id());
    let spec = JailSpec::builder(id, "/usr/bin/id").new_pid_ns(true).build()?;

    let mut running = Store::from_environment()?.create(&spec)?.launch(Streams::default())?;
    println!("pid {} in {}", running.pid(), running.receipt().root());
    println!("the VMM exited: {}", running.wait()?);

    let report = running.teardown()?;
    println!("{} objects removed, {} left", report.removed.len(), report.left.len());
    Ok(())
}
