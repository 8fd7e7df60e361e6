//! How far a long copy has come, for whoever looks at a terminal.

use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use stockade::Progress;

use crate::output::is_quiet;

/// What takes no longer is not worth a word.
const PATIENCE: Duration = Duration::from_millis(500);

const TEMPLATE: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {eta}";

/// A bar on stderr that appears if a copy takes long, and goes when it is done.
pub(crate) struct Bar<'a> {
    source: &'a Path,
    begun: Instant,
    shown: Option<ProgressBar>,
}

impl<'a> Bar<'a> {
    pub(crate) fn new(source: &'a Path) -> Self {
        Self { source, begun: Instant::now(), shown: None }
    }

    pub(crate) fn show(&mut self, progress: Progress) {
        if self.shown.is_none() && !is_quiet() && self.begun.elapsed() > PATIENCE && stderr().is_terminal() {
            self.shown = Some(self.begin());
        }
        if let Some(bar) = &self.shown {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        }
    }

    fn begin(&self) -> ProgressBar {
        let bar = ProgressBar::new(0).with_elapsed(self.begun.elapsed());
        // A test checks that there is nothing to fall back from.
        let style = ProgressStyle::with_template(TEMPLATE);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(self.source.display().to_string());
        bar
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_bars_template_is_one() {
        super::ProgressStyle::with_template(super::TEMPLATE).expect("a valid template");
    }
}
