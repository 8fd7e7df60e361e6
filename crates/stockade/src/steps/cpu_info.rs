//! The kernel's description of the processor, copied into the jail.
//!
//! A VMM on arm64 describes its guest's caches by it, and the jail has no sysfs.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{StepContext, StepKind, Undo, UndoOutcome};
use crate::error::{Context, Error, Operation, Result};
use crate::spec::{HostPath, JailPath, Owner};
use crate::sys::procfs::{first_line, read_file};

/// The kernel's directory of the first processor.
pub const FIRST_CPU: &str = "/sys/devices/system/cpu/cpu0";

/// The largest number of caches of a processor.
const CACHES: usize = 8;

/// The files of a cache. A kernel may lack some of them.
const CACHE_FILES: [&str; 6] =
    ["size", "level", "type", "shared_cpu_map", "coherency_line_size", "number_of_sets"];

/// The identification of the processor, which every VMM needs.
const IDENTIFICATION: &str = "regs/identification/midr_el1";

/// The caches and the identification of a processor, as files in the jail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuInfo {
    /// The processor's directory on the host.
    pub source: HostPath,
    /// The same directory in the jail.
    pub target: JailPath,
    /// The owner of the files.
    pub owner: Owner,
}

impl CpuInfo {
    /// Copies the first line of a file.
    fn copy(&self, ctx: &StepContext, file: &Path) -> Result<()> {
        let source = self.source.join(file);
        let text = read_file(&source).context(Operation::Read, &source)?;
        let line = format!("{}\n", first_line(&text));
        let (tree, path) = (ctx.tree()?, JailPath::new(self.target.relative().join(file))?);
        tree.make_parents(&path, self.owner)?;
        tree.write_file(&path, 0o600, Some(self.owner), |_, target| {
            rustix::io::write(target, line.as_bytes()).map(drop).context(Operation::Write, &path)
        })
    }
}

impl StepKind for CpuInfo {
    fn apply(&self, ctx: &StepContext) -> Result<()> {
        for cache in (0..CACHES).map(|index| Path::new("cache").join(format!("index{index}"))) {
            for file in CACHE_FILES {
                match self.copy(ctx, &cache.join(file)) {
                    // This kernel has no such file, or the processor no such cache.
                    Err(Error::Operation { operation: Operation::Read, .. }) => (),
                    copied => copied?,
                }
            }
        }
        self.copy(ctx, Path::new(IDENTIFICATION))
    }
}

impl Undo for CpuInfo {
    fn undo(&self, ctx: &StepContext) -> Result<UndoOutcome> {
        Ok(ctx.remove(&self.target)?.into())
    }
}

impl fmt::Display for CpuInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "processor information {}, copied from {}, owner {}", self.target, self.source, self.owner)
    }
}
