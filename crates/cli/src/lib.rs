//! The `spillway` command: runs a cluster, asks its nodes, looks into cluster files.
//!
//! A command answers on standard output, in JSON with `--json`, and says everything else on standard error. It asks all
//! nodes of the cluster file at once; one that does not answer spoils only its own part, and the exit code says so.

mod amount;
mod arguments;
pub mod assembly;
mod client;
mod cluster_file;
mod console;
mod context;
mod exit;
mod explain;
mod health;
mod ledger;
mod manual;
mod moment;
mod node;
mod order;
mod pass;
mod progress;
mod replay;
mod rollout;
mod screen;
mod spill;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod top;
pub mod up;
mod watch;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use engine::time::UnixSeconds;

pub use exit::{Exit, Failure};
pub use up::{UpFn, UpOptions};

use arguments::{Arguments, Command, ConfigCommand};
use cluster_file::Chosen;
use screen::Screen;

/// What a command sees of the process it runs in.
#[derive(Clone, Debug)]
pub struct Environment {
    /// With the program's name first.
    pub arguments: Vec<OsString>,
    /// `$SPILLWAY_CONFIG`
    pub config_variable: Option<OsString>,
    /// `$NO_COLOR` is set and not empty.
    pub no_colour: bool,
    pub out_is_terminal: bool,
    pub err_is_terminal: bool,
    /// Seconds since 1970.
    pub now: UnixSeconds,
    /// Who asks, for the audit logs of the nodes: `user@host`.
    pub by: String,
}

/// Runs the command of this process.
///
/// `now`: seconds since 1970. `up`: assembles and runs nodes.
pub fn main(now: UnixSeconds, up: UpFn) -> ExitCode {
    let environment = Environment {
        arguments: std::env::args_os().collect(),
        config_variable: std::env::var_os("SPILLWAY_CONFIG"),
        no_colour: std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
        out_is_terminal: io::stdout().is_terminal(),
        err_is_terminal: io::stderr().is_terminal(),
        now,
        by: user_at_host(),
    };
    let (mut out, mut err) = (io::stdout(), io::stderr());
    let exit = run(&environment, up, &mut out, &mut err);
    // Whoever would be told of a failure here is the one who went away.
    match out.flush() {
        Ok(()) | Err(_) => exit.into(),
    }
}

/// As far as the process can tell.
fn user_at_host() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let known = |name: &str| if name.trim().is_empty() { "unknown".to_owned() } else { name.trim().to_owned() };
    format!("{}@{}", known(&user.unwrap_or_default()), known(&host))
}

/// Runs one command.
pub fn run(environment: &Environment, up: UpFn, out: &mut dyn io::Write, err: &mut dyn io::Write) -> Exit {
    let colour = |terminal: bool| terminal && !environment.no_colour;
    let mut screen = Screen {
        out,
        err,
        json: false,
        out_colour: colour(environment.out_is_terminal),
        err_colour: colour(environment.err_is_terminal),
        out_is_terminal: environment.out_is_terminal,
        err_is_terminal: environment.err_is_terminal,
        closed: false,
    };
    let done = match Arguments::try_parse_from(&environment.arguments) {
        Ok(arguments) => dispatch(environment, arguments, up, &mut screen),
        Err(error) => usage(&error, &mut screen),
    };
    match done {
        Ok(exit) => exit,
        Err(failure) => screen.fail(&failure),
    }
}

fn dispatch(
    environment: &Environment,
    arguments: Arguments,
    up: UpFn,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    screen.json = arguments.json;
    // These need no cluster file.
    if let Command::Completions { shell } = &arguments.command {
        return manual::completions(*shell, screen);
    }
    if let Command::Man { directory } = &arguments.command {
        return manual::man(directory, screen);
    }
    let (path, chosen) = cluster_file::locate(arguments.config, environment.config_variable.as_ref())?;
    let loaded = match cluster_file::read(&path, screen)? {
        Ok(loaded) => loaded,
        Err(exit) => return Ok(exit),
    };
    let checking = matches!(arguments.command, Command::Config(ConfigCommand::Check));
    if !screen.json && !checking && !loaded.warnings.is_empty() {
        cluster_file::tell(&loaded.warnings, screen)?;
    }
    // A path that is set to nothing is not set, as with $SPILLWAY_CONFIG.
    let token_file = arguments.token_file.filter(|path| !path.as_os_str().is_empty());
    let _entered = pass::Pass::of(&loaded.cluster, token_file).enter();
    match arguments.command {
        Command::Up { node } => up::run(loaded, &node, screen.json, up),
        Command::Status => status::run(&loaded.cluster, screen),
        Command::Top => top::run(&loaded.cluster, environment.by.clone(), screen),
        Command::Console(options) => console::run(loaded.cluster, options, &environment.by, screen),
        Command::Ledger => ledger::run(&loaded.cluster, screen),
        Command::Health(command) => {
            health::run(&loaded.cluster, command, environment.now, environment.by.clone(), screen)
        }
        Command::Rollout(command) => {
            rollout::run(&loaded.cluster, command, environment.now, environment.by.clone(), screen)
        }
        Command::Node(command) => node::run(&loaded.cluster, command, environment.now, environment.by.clone(), screen),
        Command::Replay(command) => {
            replay::run(&loaded.cluster, command, environment.now, environment.by.clone(), screen)
        }
        Command::Spill(command) => {
            spill::run(&loaded.cluster, command, environment.now, environment.by.clone(), screen)
        }
        Command::Config(ConfigCommand::Check) => check(&loaded, screen),
        Command::Config(ConfigCommand::Show) => show(&loaded, chosen, screen),
        Command::Completions { shell } => manual::completions(shell, screen),
        Command::Man { directory } => manual::man(&directory, screen),
        Command::Explain { line } => explain::run(&loaded.cluster, &line.join(" "), environment.now, screen),
    }
}

/// `config check` of a file that can be used.
fn check(loaded: &config::Loaded, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    cluster_file::tell(&loaded.warnings, screen)?;
    if !screen.json {
        let warnings = loaded.warnings.problems.len();
        let nodes = loaded.cluster.nodes.len();
        let beside = if warnings == 0 { String::new() } else { format!(", {warnings} warnings") };
        screen.text(&format!("{}: good ({nodes} nodes{beside})\n", loaded.warnings.file))?;
    }
    Ok(Exit::Ok)
}

fn show(loaded: &config::Loaded, chosen: Chosen, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let (text, file) = (loaded.show(), &loaded.warnings.file);
    if screen.json {
        let value = |value: config::Value| {
            let set_by = if value.line.is_some() { "file" } else { "default" };
            serde_json::json!({ "key": value.key, "value": value.text, "set_by": set_by, "line": value.line })
        };
        let values: Vec<_> = loaded.values().into_iter().map(value).collect();
        let chosen_by = chosen.as_str();
        screen.json(&serde_json::json!({ "file": file, "chosen_by": chosen_by, "toml": text, "values": values }))?;
    } else {
        // As the file's name in the lines below: a line break in it would end the comment.
        let file = file.replace(char::is_control, "?");
        screen.text(&format!(
            "# {file}: {}; no value of it is set by a flag or the environment\n\n{text}",
            chosen.explain()
        ))?;
    }
    Ok(Exit::Ok)
}

/// Help and version are answers; everything else that clap says is an error of usage.
fn usage(error: &clap::Error, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let rendered = error.render();
    if error.use_stderr() {
        let text = if screen.err_colour { rendered.ansi().to_string() } else { rendered.to_string() };
        screen.note(&text)?;
        return Ok(Exit::Usage);
    }
    let text = if screen.out_colour { rendered.ansi().to_string() } else { rendered.to_string() };
    screen.text(&text)?;
    Ok(Exit::Ok)
}
