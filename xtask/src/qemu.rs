//! QEMU in a jail: everything that the example needs, and then the example.

use crate::command::{Done, built, cargo, command, run};
use crate::{setup, vm};

pub(crate) fn qemu() -> Done {
    setup::setup()?;
    let kernel = vm::fetch_kernel()?;
    run(&mut cargo(&["build", "--release", "--bin", "stockade"]))?;
    run(command("examples/qemu.sh", &[]).arg(kernel).env("STOCKADE", built("release/stockade")?))
}
