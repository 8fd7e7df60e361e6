//! The progress bar of a long copy or removal, on a terminal.

use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use stockade::Progress;

use super::output::{escape_control, is_quiet};

/// A shorter operation shows no bar.
const SHOW_AFTER: Duration = Duration::from_millis(500);

const BYTES: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {eta}";
const JAILS: &str = "{msg} {wide_bar} {pos}/{len} {eta}";

/// A bar on stderr that appears during a long operation and disappears when dropped.
pub(crate) struct Bar {
    what: String,
    template: &'static str,
    begun: Instant,
    shown: Option<ProgressBar>,
}

impl Bar {
    /// The bar for the copy of a file or directory.
    pub(crate) fn of_copy(source: &Path) -> Self {
        Self::new(escape_control(&source.display().to_string()), BYTES)
    }

    fn new(what: String, template: &'static str) -> Self {
        Self { what, template, begun: Instant::now(), shown: None }
    }

    pub(crate) fn show(&mut self, progress: Progress) {
        if self.shown.is_none() && !is_quiet() && self.begun.elapsed() > SHOW_AFTER && stderr().is_terminal()
        {
            self.shown = Some(self.begin(progress));
        }
        if let Some(bar) = &self.shown {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        }
    }

    fn begin(&self, Progress { done, total }: Progress) -> ProgressBar {
        let bar = ProgressBar::new(total).with_position(done).with_elapsed(self.begun.elapsed());
        // The fallback is never used: a test checks the templates.
        let style = ProgressStyle::with_template(self.template);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(self.what.clone());
        bar
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

/// A bar that several threads update.
pub(crate) struct SharedBar(Mutex<Bar>);

impl SharedBar {
    /// The bar for the removal of jails.
    pub(crate) fn of_removal() -> Self {
        Self(Mutex::new(Bar::new("removing jails".to_owned(), JAILS)))
    }

    pub(crate) fn show(&self, progress: Progress) {
        self.bar().show(progress);
    }

    /// Runs `print` with the bar hidden.
    pub(crate) fn aside<R>(&self, print: impl FnOnce() -> R) -> R {
        match &self.bar().shown {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn bar(&self) -> MutexGuard<'_, Bar> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn templates_are_valid() {
        for template in [super::BYTES, super::JAILS] {
            super::ProgressStyle::with_template(template).expect("a valid template");
        }
    }
}
