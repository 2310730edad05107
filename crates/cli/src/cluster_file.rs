//! Finds the cluster file, reads it, and says everything that is wrong with it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use config::{Loaded, Problems, Severity};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::screen::Screen;

const FALLBACKS: [&str; 2] = ["spillway.toml", "/etc/spillway/spillway.toml"];

/// Who chose the cluster file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chosen {
    Flag,
    Environment,
    Fallback,
}

impl Chosen {
    /// For programs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Chosen::Flag => "flag",
            Chosen::Environment => "env",
            Chosen::Fallback => "default",
        }
    }

    /// For people.
    pub(crate) fn explain(self) -> &'static str {
        match self {
            Chosen::Flag => "chosen by the flag --config",
            Chosen::Environment => "chosen by the environment, $SPILLWAY_CONFIG",
            Chosen::Fallback => "the default, as neither --config nor $SPILLWAY_CONFIG is given",
        }
    }
}

/// The file that is meant: what was given, else `$SPILLWAY_CONFIG`, else the first fallback that exists.
///
/// # Errors
/// When there is none.
pub(crate) fn locate(given: Option<PathBuf>, variable: Option<&OsString>) -> Result<(PathBuf, Chosen), Failure> {
    if let Some(path) = given {
        return Ok((path, Chosen::Flag));
    }
    if let Some(path) = variable.filter(|path| !path.is_empty()) {
        return Ok((path.into(), Chosen::Environment));
    }
    let found = FALLBACKS.iter().map(PathBuf::from).find(|path| path.exists());
    found.map(|path| (path, Chosen::Fallback)).ok_or_else(|| {
        let tried = FALLBACKS.join(" or ");
        Failure::usage(anyhow!("there is no cluster file: give --config FILE, set SPILLWAY_CONFIG, or write {tried}"))
    })
}

/// Reads and checks the file. `Ok(Err(..))`: it has problems, and they were told.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read(path: &Path, screen: &mut Screen<'_>) -> Result<Result<Loaded, Exit>, Failure> {
    let name = path.display().to_string();
    let bytes = fs::read(path).with_context(|| format!("read {name}")).map_err(Failure::usage)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::usage(anyhow!("{name}: not UTF-8 from byte {at} on"))
    })?;
    match config::load(&name, &text) {
        Ok(loaded) => Ok(Ok(loaded)),
        Err(problems) => {
            tell(&problems, screen)?;
            Ok(Err(Exit::Usage))
        }
    }
}

/// Prints problems: excerpts for people, fields for programs.
///
/// # Errors
/// When the output does not take it.
pub(crate) fn tell(problems: &Problems, screen: &mut Screen<'_>) -> anyhow::Result<()> {
    if screen.json {
        return screen.json(&Report::of(problems));
    }
    let text = problems.excerpts(screen.err_colour);
    screen.note(&text)
}

/// Problems for programs.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'p> {
    file: &'p str,
    ok: bool,
    problems: Vec<Entry<'p>>,
}

#[derive(Debug, Serialize)]
struct Entry<'p> {
    severity: &'static str,
    line: usize,
    column: usize,
    key: &'p str,
    message: &'p str,
    help: &'p str,
}

impl<'p> Report<'p> {
    pub(crate) fn of(problems: &'p Problems) -> Report<'p> {
        let entry = |problem: &'p config::Problem| Entry {
            severity: problem.severity.as_str(),
            line: problem.line,
            column: problem.column,
            key: &problem.key,
            message: &problem.message,
            help: &problem.help,
        };
        let ok = problems.problems.iter().all(|problem| problem.severity == Severity::Warning);
        Report { file: &problems.file, ok, problems: problems.problems.iter().map(entry).collect() }
    }
}
