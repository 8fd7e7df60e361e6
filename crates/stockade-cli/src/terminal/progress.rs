//! How far a long copy or removal has come, for whoever looks at a terminal.

use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use stockade::Progress;

use super::output::is_quiet;

/// What takes no longer is not worth a word.
const PATIENCE: Duration = Duration::from_millis(500);

/// Of what is counted in bytes, and of jails.
const BYTES: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {eta}";
const JAILS: &str = "{msg} {wide_bar} {pos}/{len} {eta}";

/// A bar on stderr that appears if something takes long, and goes when it is done.
pub(crate) struct Bar {
    what: String,
    template: &'static str,
    begun: Instant,
    shown: Option<ProgressBar>,
}

impl Bar {
    /// Of a file or directory that is copied.
    pub(crate) fn of_copy(source: &Path) -> Self {
        Self::new(source.display().to_string(), BYTES)
    }

    fn new(what: String, template: &'static str) -> Self {
        Self { what, template, begun: Instant::now(), shown: None }
    }

    pub(crate) fn show(&mut self, progress: Progress) {
        if self.shown.is_none() && !is_quiet() && self.begun.elapsed() > PATIENCE && stderr().is_terminal() {
            self.shown = Some(self.begin(progress));
        }
        if let Some(bar) = &self.shown {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        }
    }

    fn begin(&self, Progress { done, total }: Progress) -> ProgressBar {
        let bar = ProgressBar::new(total).with_position(done).with_elapsed(self.begun.elapsed());
        // A test checks that there is nothing to fall back from.
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

/// One that several threads move.
pub(crate) struct SharedBar(Mutex<Bar>);

impl SharedBar {
    /// Of jails that are removed.
    pub(crate) fn of_removal() -> Self {
        Self(Mutex::new(Bar::new("removing jails".to_owned(), JAILS)))
    }

    pub(crate) fn show(&self, progress: Progress) {
        self.bar().show(progress);
    }

    /// Does what prints, with the bar out of the way.
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
    fn the_bars_templates_are_some() {
        for template in [super::BYTES, super::JAILS] {
            super::ProgressStyle::with_template(template).expect("a valid template");
        }
    }
}
