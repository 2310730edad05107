//! `spillway replay discard`: gives up what waits in the spills. Every relay is asked first what would go; only `--force`
//! lets it go, and what went is counted there as `discarded`.

use admin_api::{Refused, SpillDiscard, SpillLoss, paths};
use anyhow::anyhow;
use serde::Serialize;

use super::RUNBOOK;
use super::arguments::Discard;
use super::change::{bounds, check_glob};
use super::cursor::{find, spills, words};
use crate::client::{Answer, Fault, Request, complaint, exit_of};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::screen::Screen;

/// One relay's part, for programs.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    node: &'a str,
    answers: bool,
    done: bool,
    /// What was, or would be, lost.
    loss: Option<&'a SpillLoss>,
    error: Option<String>,
}

/// # Errors
/// When it is not said what to discard, when it is said wrongly, or when nothing can be printed.
pub(super) fn run(context: &Context<'_>, asked: &Discard, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let request = request(context, asked)?;
    let spills = spills(context);
    let mut request = request;
    let nodes = match &asked.source {
        Some(source) => {
            let (answer, destination) = find(context, &spills, source)?;
            request.destination = destination;
            vec![answer.node]
        }
        None => spills.iter().map(|answer| answer.node).collect(),
    };
    if nodes.is_empty() {
        return Err(Failure::usage(anyhow!("the cluster file has no relay, so there is no spill")));
    }
    let mut requests = Vec::new();
    for node in nodes {
        requests.push((node, Request::post(paths::SPILL_DISCARD, &request)?));
    }
    let answers = context.client.all::<SpillLoss>(requests);
    if screen.json {
        let nodes: Vec<Entry<'_>> = answers.iter().map(entry).collect();
        screen.json(&serde_json::json!({ "cluster": context.cluster.name, "nodes": nodes }))?;
    } else {
        tell(context, &answers, screen)?;
    }
    Ok(exit_of(&answers))
}

fn request(context: &Context<'_>, asked: &Discard) -> Result<SpillDiscard, Failure> {
    let chosen = asked.source.is_some() || asked.from.is_some() || asked.to.is_some() || asked.matching.is_some();
    if !chosen && !asked.all {
        return Err(Failure::usage(anyhow!("say what to give up: --source, --from, --to, --match, or --all")));
    }
    let wrong = |reason: String| Failure::usage(anyhow!(reason));
    if let Some(glob) = &asked.matching {
        check_glob(glob).map_err(wrong)?;
    }
    let range = bounds(context, asked.from.as_deref(), asked.to.as_deref()).map_err(wrong)?;
    Ok(SpillDiscard {
        destination: None,
        from: range.from,
        to: range.to,
        matching: asked.matching.clone(),
        dry_run: asked.dry_run,
        force: asked.force,
        by: context.by.clone(),
    })
}

fn tell(context: &Context<'_>, answers: &[Answer<'_, SpillLoss>], screen: &mut Screen<'_>) -> Result<(), Failure> {
    let mut refused = 0;
    let mut would = 0u64;
    for answer in answers {
        let name = &answer.node.name;
        match &answer.result {
            Ok(loss) if loss.done => screen.text(&format!("{name}: lost {}\n", words(context, loss)))?,
            Ok(loss) => {
                would = would.saturating_add(loss.points);
                screen.text(&format!("{name}: would lose {}\n", words(context, loss)))?;
            }
            Err(Fault::Refused { refused: Refused { would_lose: Some(loss), .. }, .. }) => {
                (refused, would) = (refused + 1, would.saturating_add(loss.points));
                screen.text(&format!("{name}: would lose {}\n", words(context, loss)))?;
            }
            Err(fault) => screen.note(&complaint(name, fault))?,
        }
    }
    if refused > 0 {
        screen.note(&format!(
            "spillway: refused, nothing was lost on {refused} relays: --force does it; read {RUNBOOK}#discard first\n"
        ))?;
    } else if would > 0 {
        screen.note("spillway: nothing was lost: --force instead of --dry-run does it\n")?;
    }
    Ok(())
}

fn entry<'a>(answer: &'a Answer<'_, SpillLoss>) -> Entry<'a> {
    let loss = match &answer.result {
        Ok(loss) => Some(loss),
        Err(Fault::Refused { refused, .. }) => refused.would_lose.as_ref(),
        Err(Fault::Silent(_)) => None,
    };
    Entry {
        node: &answer.node.name,
        answers: !matches!(answer.result, Err(Fault::Silent(_))),
        done: answer.result.as_ref().is_ok_and(|loss| loss.done),
        loss,
        error: answer.result.as_ref().err().map(ToString::to_string),
    }
}
