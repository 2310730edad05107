//! Where answers go: people get text, programs get JSON. Colour only on a terminal, and never with `NO_COLOR`.

use std::io::{self, Write};

use anyhow::Context as _;
use serde::Serialize;

use crate::exit::{Exit, Failure};

/// The two outputs of a command.
pub(crate) struct Screen<'w> {
    pub(crate) out: &'w mut dyn Write,
    pub(crate) err: &'w mut dyn Write,
    /// Answers are JSON.
    pub(crate) json: bool,
    pub(crate) out_colour: bool,
    pub(crate) err_colour: bool,
    /// Long work may show how far it is, and a screen may be drawn over.
    pub(crate) out_is_terminal: bool,
    pub(crate) err_is_terminal: bool,
    /// Whoever read the answer went away.
    pub(crate) closed: bool,
}

impl Screen<'_> {
    /// Writes an answer for people.
    ///
    /// # Errors
    /// When the output does not take it.
    pub(crate) fn text(&mut self, text: &str) -> anyhow::Result<()> {
        match self.out.write_all(text.as_bytes()) {
            // A reader that went away (`spillway status | head`) has what it wanted.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            other => other.context("write the answer"),
        }
    }

    /// Writes an answer for programs, on one line.
    ///
    /// # Errors
    /// When the output does not take it.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_string(value).context("encode the answer")?;
        text.push('\n');
        self.text(&text)
    }

    /// Writes what is said beside the answer.
    ///
    /// # Errors
    /// When the output does not take it.
    pub(crate) fn note(&mut self, text: &str) -> anyhow::Result<()> {
        self.err.write_all(text.as_bytes()).context("write to standard error")
    }

    /// Says why the command could not do its work, and gives the exit code back.
    pub(crate) fn fail(&mut self, failure: &Failure) -> Exit {
        let error = &failure.error;
        let told = match self.json {
            true => self.json(&serde_json::json!({ "ok": false, "error": format!("{error:#}") })),
            false => self.note(&format!("spillway: {error:#}\n")),
        };
        // Neither output takes anything: the exit code is all that is left to say.
        match told {
            Ok(()) | Err(_) => failure.exit,
        }
    }

    /// Whether long work shows how far it is: to people who can see it, on standard error.
    pub(crate) fn shows_progress(&self) -> bool {
        self.err_is_terminal && !self.json
    }

    /// `text` as something that needs attention, where the answer has colours.
    pub(crate) fn alarm(&self, text: &str) -> String {
        if self.out_colour { format!("\u{1b}[1;31m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// `text`, emphasised where the answer has colours.
    pub(crate) fn bold(&self, text: &str) -> String {
        if self.out_colour { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
