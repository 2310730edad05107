//! What is made out of the definition of the command line: shell completions and man pages. Neither needs a cluster file.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::shells;
use clap_mangen::Man;

use crate::arguments::{Arguments, Shell};
use crate::exit::{Exit, Failure};
use crate::screen::Screen;

/// Below the pages of subcommands.
const SEE: &str = "Exit codes and the cluster file: see spillway(1).";

/// Prints the completions of a shell.
///
/// # Errors
/// When nothing can be printed.
pub(crate) fn completions(shell: Shell, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let (mut command, mut script) = (Arguments::command(), Vec::new());
    match shell {
        Shell::Bash => clap_complete::generate(shells::Bash, &mut command, "spillway", &mut script),
        Shell::Zsh => clap_complete::generate(shells::Zsh, &mut command, "spillway", &mut script),
        Shell::Fish => clap_complete::generate(shells::Fish, &mut command, "spillway", &mut script),
    }
    let script = String::from_utf8(script).context("the completions are not text")?;
    match screen.json {
        true => screen.json(&serde_json::json!({ "script": script }))?,
        false => screen.text(&script)?,
    }
    Ok(Exit::Ok)
}

/// Writes `spillway.1`, `spillway-replay.1`, `spillway-replay-rate.1` and so on.
///
/// # Errors
/// When they cannot be written.
pub(crate) fn man(directory: &Path, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let shown = directory.display();
    fs::create_dir_all(directory).with_context(|| format!("make {shown}")).map_err(Failure::usage)?;
    let mut command = Arguments::command();
    command.build();
    let mut written = Vec::new();
    pages(&command, directory, &mut written).map_err(Failure::usage)?;
    match screen.json {
        true => screen.json(&serde_json::json!({ "directory": directory, "pages": written }))?,
        false => screen.text(&format!("{} pages in {shown}: man -l {shown}/spillway.1\n", written.len()))?,
    }
    Ok(Exit::Ok)
}

fn pages(command: &clap::Command, directory: &Path, written: &mut Vec<String>) -> anyhow::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let mut page = command.clone().disable_help_flag(true);
    if name != "spillway" {
        page = page.after_help(SEE);
    }
    let file = format!("{name}.1");
    let path = directory.join(&file);
    let mut text = Vec::new();
    Man::new(page).render(&mut text).context("make a man page")?;
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    written.push(file);
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages(below, directory, written)?;
    }
    Ok(())
}
