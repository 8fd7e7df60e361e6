//! Files of the host in a jail: copied, bound, and for reading only. As root:
//!
//!     cargo run --package stockade --example images

use stockade::spec::JailSpec;
use stockade::{How, Placement, Store, Streams};

fn main() -> stockade::Result<()> {
    let id = format!("images-{}", std::process::id());
    let show = ["-c", "ls -l /drives && ! echo more >> /drives/hosts"];
    let spec = JailSpec::builder(id, "/usr/bin/busybox").arguments(["sh"]).arguments(show).build()?;
    let mut prepared = Store::from_environment()?.create(&spec)?;

    // How a file gets there is decided by what the filesystem has and whom the file belongs to.
    let placed = prepared.place(Placement::new("/etc/passwd").named("drives/passwd"))?;
    println!("{placed} by {}", placed.how);
    // A link or a bind is the host's own file: so that the jail cannot write to it, it is read-only.
    let hosts = Placement::new("/etc/hosts").named("drives/hosts").how(How::Bind).read_only();
    let placed = prepared.place(hosts)?;
    println!("{placed} by {}", placed.how);

    let mut running = prepared.launch(Streams::default())?;
    println!("it ended: {}", running.wait()?);
    running.teardown()?;
    Ok(())
}
