//! Where answers go: people get text, programs get JSON. Colour only on a terminal, and never with `NO_COLOR`.

use std::io::{self, Write};

use anyhow::Context as _;
use serde::Serialize;

/// The two outputs of a command.
pub(crate) struct Screen<'w> {
    pub(crate) out: &'w mut dyn Write,
    pub(crate) err: &'w mut dyn Write,
    /// Answers are JSON.
    pub(crate) json: bool,
    pub(crate) out_colour: bool,
    pub(crate) err_colour: bool,
}

impl Screen<'_> {
    /// Writes an answer for people.
    ///
    /// # Errors
    /// When the output does not take it.
    pub(crate) fn text(&mut self, text: &str) -> anyhow::Result<()> {
        match self.out.write_all(text.as_bytes()) {
            // A reader that went away (`spillway status | head`) has what it wanted.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
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

    /// `text`, emphasised where the answer has colours.
    pub(crate) fn bold(&self, text: &str) -> String {
        if self.out_colour { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}
