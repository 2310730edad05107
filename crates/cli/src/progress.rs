//! How far long work is, on standard error of a terminal; elsewhere nothing at all.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::screen::Screen;

/// What the bar counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Records,
    Bytes,
}

impl Unit {
    fn template(self) -> &'static str {
        match self {
            Unit::Records => "{msg} [{bar:40}] {human_pos}/{human_len} records, {eta} left",
            Unit::Bytes => "{msg} [{bar:40}] {binary_bytes}/{binary_total_bytes}, {binary_bytes_per_sec}, {eta} left",
        }
    }
}

/// One piece of work. The bar is gone when this is dropped: the summary is the answer.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// `total`: an estimate; more than that is no mistake.
    pub(crate) fn new(screen: &Screen<'_>, what: &str, total: u64, unit: Unit) -> Progress {
        if !screen.shows_progress() {
            return Progress { bar: ProgressBar::hidden() };
        }
        // The templates are ours; were one wrong, the default would do.
        let style = ProgressStyle::with_template(unit.template()).unwrap_or_else(|_| ProgressStyle::default_bar());
        // indicatif itself limits how often it draws.
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        bar.set_style(style.progress_chars("=> "));
        bar.set_message(what.to_owned());
        Progress { bar }
    }

    pub(crate) fn advance(&self, by: u64) {
        self.bar.inc(by);
        if self.bar.length().is_some_and(|length| length < self.bar.position()) {
            self.bar.set_length(self.bar.position());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: bool, err_is_terminal: bool, shown: bool) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let screen = Screen {
            out: &mut out,
            err: &mut err,
            json,
            out_colour: false,
            err_colour: false,
            out_is_terminal: true,
            err_is_terminal,
            closed: false,
        };
        for unit in [Unit::Records, Unit::Bytes] {
            let progress = Progress::new(&screen, "verify relay-1", 10, unit);
            assert_eq!(progress.bar.length().is_some(), shown, "a hidden bar counts towards nothing");
            progress.advance(4);
            progress.advance(8);
            assert_eq!(progress.bar.position(), 12);
        }
        assert!(err.is_empty());
    }

    #[test]
    fn only_a_person_at_a_terminal_is_shown_a_bar() {
        check(false, true, true);
        check(false, false, false);
        check(true, true, false);
    }

    #[test]
    fn the_templates_are_right() {
        for unit in [Unit::Records, Unit::Bytes] {
            assert!(ProgressStyle::with_template(unit.template()).is_ok());
        }
    }
}
