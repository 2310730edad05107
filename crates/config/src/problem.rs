//! What is wrong with a file: where, which key, and what would be right. Three renderings of the same facts: one line
//! (for editors and logs), the excerpt with a marked span (for people), and plain fields (for `--json`).

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Whether the file can be used in spite of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub severity: Severity,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// Such as `send.linger` or `node[2].admin` (counted from 1); empty if the file as a whole is meant.
    pub key: String,
    pub message: String,
    /// What would be right; empty if the message says it all.
    pub help: String,
    /// Bytes of the text that are marked; on character boundaries.
    pub(crate) span: Range<usize>,
    /// Another place of the same file that belongs to it.
    pub(crate) related: Option<(Range<usize>, String)>,
}

/// Everything that is wrong with one file, in the order of the file. Keeps the text, for excerpts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    pub file: String,
    pub problems: Vec<Problem>,
    text: String,
}

impl Problems {
    pub(crate) fn new(file: &str, text: &str, mut problems: Vec<Problem>) -> Problems {
        problems.sort_by(|a, b| (a.line, a.column, a.severity, &a.key).cmp(&(b.line, b.column, b.severity, &b.key)));
        problems.dedup();
        Problems { file: file.into(), problems, text: text.into() }
    }

    /// How many forbid to use the file.
    pub fn error_count(&self) -> usize {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error).count()
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// `file:line:column: key: message (help)`, one problem a line, without the marked excerpt.
    pub fn plain(&self) -> String {
        let mut out = String::new();
        for problem in &self.problems {
            let Problem { line, column, message, help, .. } = problem;
            let key = if problem.key.is_empty() { String::new() } else { format!("{}: ", problem.key) };
            let kind = match problem.severity {
                Severity::Error => "",
                Severity::Warning => "warning: ",
            };
            let help = if help.is_empty() { String::new() } else { format!(" ({help})") };
            let one_line =
                format!("{}:{line}:{column}: {kind}{key}{message}{help}", self.file).replace(['\n', '\r'], " ");
            out.push_str(&one_line);
            out.push('\n');
        }
        out
    }

    /// The excerpt of each problem with its span marked, as `rustc` would print it, and a closing count.
    ///
    /// `colour`: with ANSI escapes.
    pub fn excerpts(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for problem in &self.problems {
            out.push_str(&renderer.render(&[self.excerpt(problem)]));
            out.push_str("\n\n");
        }
        let errors = self.error_count();
        if errors > 0 {
            let plural = if errors == 1 { "problem" } else { "problems" };
            out.push_str(&format!("{errors} {plural} in {}\n", self.file));
        }
        out
    }

    fn excerpt<'p>(&'p self, problem: &'p Problem) -> Group<'p> {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = if problem.key.is_empty() {
            problem.message.clone()
        } else {
            format!("{}: {}", problem.key, problem.message)
        };
        let mut snippet = Snippet::source(self.text.as_str())
            .path(self.file.as_str())
            .annotation(AnnotationKind::Primary.span(problem.span.clone()));
        if let Some((span, label)) = &problem.related {
            snippet = snippet.annotation(AnnotationKind::Context.span(span.clone()).label(label.as_str()));
        }
        let mut group = level.primary_title(title).element(snippet);
        if !problem.help.is_empty() {
            group = group.element(Level::HELP.message(problem.help.as_str()));
        }
        group
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.plain())
    }
}

impl std::error::Error for Problems {}

/// Line and column of byte `at`, both counted from 1; the column in characters.
pub(crate) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.get(line_start..).map_or(0, |rest| rest.chars().count()) + 1;
    (line, column)
}

/// The span inside the text, widened to character boundaries.
pub(crate) fn clip(text: &str, span: Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let end = text.ceil_char_boundary(span.end.clamp(start, text.len()));
    start..end
}
