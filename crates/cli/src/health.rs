//! `spillway health`: who gets traffic from whom and why, and the mode in which that is decided.

mod show;

use admin_api::{ModeChange, ModeStatus, paths};
use anyhow::anyhow;
use clap::{Args, Subcommand, ValueEnum};
use config::Cluster;
use engine::time::UnixSeconds;
use serde_json::json;

use crate::client::{Answer, Request, exit_of, silent};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::moment;
use crate::order::{self, Asking};
use crate::screen::Screen;
use crate::table::Table;

/// `spillway health ...`
#[derive(Debug, Args)]
pub(crate) struct Health {
    #[command(subcommand)]
    command: Option<HealthCommand>,
    /// Who changes this, for the audit log of the nodes [default: user@host]
    #[arg(long, global = true, value_name = "WHO")]
    by: Option<String>,
}

#[derive(Debug, Subcommand)]
enum HealthCommand {
    /// Verdicts of all nodes, who gets traffic from whom and why, and what happened lately; the abnormal first
    Show,
    /// Show the modes, or set one on every node of the cluster at once
    Mode(ModeArguments),
}

#[derive(Debug, Args)]
struct ModeArguments {
    /// strict: proven by canaries; lenient: the link is up; auto: strict as long as that leaves enough nodes
    #[arg(requires = "which")]
    mode: Option<ModeWord>,
    #[command(flatten)]
    which: Which,
    /// Reverts by itself after this time, such as 30m
    #[arg(long = "for", value_name = "TIME", requires = "mode")]
    lasts: Option<String>,
    /// Change nothing, and show which nodes would gain or lose traffic
    #[arg(long, requires = "mode")]
    dry_run: bool,
}

#[derive(Debug, Args)]
#[group(id = "which", multiple = false)]
struct Which {
    /// The nodes of this layer: partial or final
    #[arg(long)]
    layer: Option<String>,
    /// All layers
    #[arg(long)]
    all: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeWord {
    Strict,
    Lenient,
    Auto,
}

impl ModeWord {
    fn as_str(self) -> &'static str {
        match self {
            ModeWord::Strict => "strict",
            ModeWord::Lenient => "lenient",
            ModeWord::Auto => "auto",
        }
    }
}

/// Runs one of its commands.
///
/// # Errors
/// When nobody can be asked, nothing can be printed, or the arguments are wrong.
pub(crate) fn run(
    cluster: &Cluster,
    health: Health,
    now: UnixSeconds,
    by: String,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let context = Context::new(cluster, now, order::who(health.by, by)?)?;
    match health.command.unwrap_or(HealthCommand::Show) {
        HealthCommand::Show => show::run(&context, screen),
        HealthCommand::Mode(asked) => match asked.mode {
            Some(mode) => change(&context, mode, &asked, screen),
            None => modes(&context, screen),
        },
    }
}

fn change(
    context: &Context<'_>,
    mode: ModeWord,
    asked: &ModeArguments,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let lasts = asked.lasts.as_deref().map(order::lasts).transpose();
    let lasts = lasts.map_err(|wrong| Failure::usage(anyhow!("--for {wrong}")))?;
    let change = ModeChange {
        layer: asked.which.layer.clone(),
        mode: mode.as_str().to_owned(),
        until: lasts.map(|seconds| order::end(context.now, seconds)),
        dry_run: asked.dry_run,
        by: context.by.clone(),
    };
    order::send(context, &Asking::mode(&change)?, screen)
}

/// What is in force on each node; where they differ, each is shown.
fn modes(context: &Context<'_>, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let requests = context.cluster.nodes.iter().map(|node| (node, Request::get(paths::HEALTH_MODE)));
    let answers: Vec<Answer<'_, ModeStatus>> = context.client.all(requests.collect());
    if screen.json {
        let nodes: Vec<_> = answers.iter().filter_map(|answer| answer.result.as_ref().ok()).collect();
        let failed: Vec<_> = order::failures(&answers);
        screen.json(&json!({ "nodes": nodes, "failed": failed }))?;
        return Ok(exit_of(&answers));
    }
    let said: Vec<&ModeStatus> = answers.iter().filter_map(|answer| answer.result.as_ref().ok()).collect();
    let same = said.windows(2).all(|pair| pair[0].digest == pair[1].digest);
    let mut out = String::new();
    if same {
        out.push_str(&table(said.iter().take(1)));
    } else {
        out.push_str(&screen.alarm("the nodes do not know the same orders yet"));
        out.push('\n');
        out.push_str(&table(said.iter()));
    }
    screen.text(&out)?;
    screen.note(&silent(&answers))?;
    Ok(exit_of(&answers))
}

fn table<'a>(said: impl Iterator<Item = &'a &'a ModeStatus>) -> String {
    let mut table = Table::new(["LAYER", "MODE", "UNTIL", "THEN", "ORDERED", "BY", "ASKED"]);
    for status in said {
        for of in &status.layers {
            table.row([
                of.layer.clone(),
                of.mode.clone(),
                of.until.map(moment::show).unwrap_or_default(),
                of.then.clone().unwrap_or_default(),
                of.ordered_at.map_or("cluster file".to_owned(), moment::show),
                of.ordered_by.clone().unwrap_or_default(),
                status.node.clone(),
            ]);
        }
    }
    table.render()
}
