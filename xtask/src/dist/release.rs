//! The release: name, version, architecture, date.

use crate::command::{Done, command, output};

/// The facts in names and documents.
pub(crate) struct Release {
    pub(crate) version: &'static str,
    /// The architecture in Rust's terms.
    pub(crate) machine: &'static str,
    /// The time of all packed files, in seconds since 1970.
    pub(crate) time: u64,
}

impl Release {
    /// The release of this tree. Its time is `SOURCE_DATE_EPOCH`, or the time of the last commit.
    pub(crate) fn of_this_tree() -> Done<Self> {
        let time = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(given) => given,
            // For any owner of the clone: this task already runs its code.
            Err(_) => output(&mut command("git", &["-c", "safe.directory=*", "log", "-1", "--format=%ct"]))
                .map_err(|e| {
                format!("{e}; without git, set SOURCE_DATE_EPOCH to the time of the sources")
            })?,
        };
        let time = time.trim().parse().map_err(|_| {
            format!("SOURCE_DATE_EPOCH: {:?} is not a number of seconds since 1970", time.trim())
        })?;
        Ok(Self { version: env!("CARGO_PKG_VERSION"), machine: std::env::consts::ARCH, time })
    }

    /// The beginning of the files' names.
    pub(crate) fn name(&self) -> String {
        format!("stockade-{}-{}-linux", self.version, self.machine)
    }

    /// The architecture in Debian's terms.
    pub(crate) fn architecture(&self) -> &'static str {
        match self.machine {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    }

    /// The time in this format of date(1).
    pub(crate) fn date(&self, format: &str) -> Done<String> {
        let at = format!("--date=@{}", self.time);
        let date = output(command("date", &["--utc", &at, format]).env("LC_ALL", "C"))?;
        Ok(date.trim().to_owned())
    }
}
