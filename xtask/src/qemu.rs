//! Prepares and runs the example of QEMU in a jail.

use crate::command::{Done, built, cargo, command, run};
use crate::{setup, vm};

pub(crate) fn qemu() -> Done {
    setup::setup()?;
    let kernel = vm::fetch_kernel()?;
    run(&mut cargo(&["build", "--release", "--bin", "stockade"]))?;
    run(command("examples/qemu.sh", &[]).arg(kernel).env("STOCKADE", built("release/stockade")?))
}
