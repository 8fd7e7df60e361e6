//! A program in a jail, from nothing to nothing. As root:
//!
//!     cargo run --package stockade --example minimal

use stockade::spec::JailSpec;
use stockade::{Store, Streams};

fn main() -> stockade::Result<()> {
    // Any program will do for a VMM; this one tells who it is. Its libraries come along.
    let id = format!("minimal-{}", std::process::id());
    let spec = JailSpec::builder(id, "/usr/bin/id").new_pid_ns(true).build()?;

    let mut running = Store::from_environment()?.create(&spec)?.launch(Streams::default())?;
    println!("pid {} in {}", running.pid(), running.receipt().root());
    println!("it ended: {}", running.wait()?);

    let report = running.teardown()?;
    println!("{} things removed, {} left", report.removed.len(), report.left.len());
    Ok(())
}
