//! How far a replay is, on standard error, where somebody looks at it.

use std::future::pending;
use std::io::IsTerminal as _;
use std::time::Duration;

use floodmark_client::replay::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, sleep_until};

use crate::input::quantity::show_count;
use crate::output::note;

/// Often enough for whoever looks, seldom enough to cost nothing.
const SHOWN_EVERY: Duration = Duration::from_millis(200);

pub(super) struct Shown {
    bar: ProgressBar,
    due: Instant,
}

/// Where the records go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    StandardOutput,
    Elsewhere,
}

impl Shown {
    pub(super) fn new(to: To) -> Shown {
        // A bar among records would spoil both.
        let is_in_the_way = to == To::StandardOutput && std::io::stdout().is_terminal();
        let bar = if std::io::stderr().is_terminal() && !is_in_the_way {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
        } else {
            ProgressBar::hidden()
        };
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} offsets, {msg}");
        let bar = match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        Shown { bar, due: Instant::now() + SHOWN_EVERY }
    }

    /// True where it is time to show more.
    pub(super) fn is_due(&self) -> bool {
        !self.bar.is_hidden() && Instant::now() >= self.due
    }

    /// The time to show more has come.
    pub(super) async fn due(&self) {
        match self.bar.is_hidden() {
            true => pending().await,
            false => sleep_until(self.due).await,
        }
    }

    pub(super) fn show(&mut self, progress: &Progress) {
        self.bar.set_length(progress.offsets);
        self.bar.set_position(progress.offsets_done);
        let left = progress.left().map_or_else(String::new, |left| format!(", {} s left", left.as_secs()));
        self.bar.set_message(format!(
            "{} records, {:.0}/s{left}",
            show_count(progress.records),
            progress.rate()
        ));
        self.due = Instant::now() + SHOWN_EVERY;
    }

    /// The last word, where the records themselves are not what is looked at.
    pub(super) fn end(self, progress: &Progress) {
        self.bar.finish_and_clear();
        let seconds = progress.elapsed.as_secs_f64();
        note(&format!(
            "{} records in {seconds:.1} s, {:.0}/s",
            show_count(progress.records),
            progress.rate()
        ));
    }
}
