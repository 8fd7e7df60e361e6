//! Files of the host in a jail: copied, bound and read-only. Run as root:
//!
//!     cargo run --package stockade --example images

use stockade::spec::JailSpec;
use stockade::{How, Placement, Store, Streams};

fn main() -> stockade::Result<()> {
    let id = format!("images-{}", std::process::id());
    let show = ["-c", "ls -l /drives && ! echo more >> /drives/hosts"];
    let spec = JailSpec::builder(id, "/usr/bin/busybox").arguments(["sh"]).arguments(show).build()?;
    let mut created = Store::from_environment()?.create(&spec)?;

    // The filesystem and the file's owner decide the method.
    let placed = created.place(Placement::new("/etc/passwd").named("drives/passwd"))?;
    println!("{placed} by {}", placed.how);
    // A bind is the host's own file. Read-only, so that the jail cannot write to it.
    let hosts = Placement::new("/etc/hosts").named("drives/hosts").how(How::Bind).read_only();
    let placed = created.place(hosts)?;
    println!("{placed} by {}", placed.how);

    let mut running = created.launch(Streams::default())?;
    println!("the VMM exited: {}", running.wait()?);
    running.teardown()?;
    Ok(())
}
