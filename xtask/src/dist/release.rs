//! The facts of a release: name, version, machine, date.

use crate::command::{Done, command, output};

/// The facts that stand in names and documents.
pub(crate) struct Release {
    pub(crate) version: &'static str,
    /// The machine as compilers call it.
    pub(crate) machine: &'static str,
    /// Seconds since 1970: the time of everything that is packed.
    pub(crate) time: u64,
}

impl Release {
    /// This tree: the time is that of `SOURCE_DATE_EPOCH`, or of the last commit.
    pub(crate) fn of_this_tree() -> Done<Self> {
        let time = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(given) => given,
            // The clone may belong to another user: its programs are trusted already.
            Err(_) => output(&mut command("git", &["-c", "safe.directory=*", "log", "-1", "--format=%ct"]))
                .map_err(|e| {
                format!("{e}: without git, SOURCE_DATE_EPOCH has to tell the time of the sources")
            })?,
        };
        let time = time.trim().parse().map_err(|_| {
            format!("SOURCE_DATE_EPOCH: {:?} is not a number of seconds since 1970", time.trim())
        })?;
        Ok(Self { version: env!("CARGO_PKG_VERSION"), machine: std::env::consts::ARCH, time })
    }

    /// The name that files begin with.
    pub(crate) fn name(&self) -> String {
        format!("stockade-{}-{}-linux", self.version, self.machine)
    }

    /// The machine as Debian calls it.
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
