//! The settings of replay: shown, or changed on all nodes that replay at once. A node says what is in force after the
//! change, so what is printed as new is what it does, not what was asked. Sent twice, a change is once done.

use admin_api::{ReplayChange, ReplaySettings, ReplayStatus, TimeRange, paths};
use anyhow::anyhow;
use config::Layer;
use engine::pattern::{Pattern, Selector};
use engine::rate;
use engine::replay::{ONE_SOURCE, known_sources};
use serde::Serialize;

use super::arguments::{NotAlone, OnOff, Range};
use super::source::{self, full_name, is_of, name_at};
use super::status::{selection, span};
use crate::client::{Answer, Request, complaint, exit_of_results, silent};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::moment;
use crate::screen::Screen;
use crate::table::Table;

/// What a command changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    Rate,
    State,
    Canary,
    Adaptive,
    Range,
    Match,
}

/// One node's part, for programs.
#[derive(Debug, Serialize)]
struct Entry {
    node: String,
    layer: &'static str,
    answers: bool,
    error: Option<String>,
    setting: &'static str,
    old: Option<String>,
    new: Option<String>,
    /// All of them, after the change.
    settings: Option<ReplaySettings>,
}

/// # Errors
/// When the rate is none, with the one that is in force; or as [`apply`].
pub(super) fn rate(
    context: &Context<'_>,
    rate: Option<String>,
    source: Option<String>,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let Some(text) = rate else { return show(context, source.as_deref(), screen) };
    match rate::parse(&text) {
        Ok(rate) => {
            let change = ReplayChange { source, rate: Some(rate), ..ReplayChange::default() };
            apply(context, Setting::Rate, change, screen)
        }
        Err(wrong) => Err(refused(context, Setting::Rate, source.as_deref(), &wrong.to_string())),
    }
}

/// # Errors
/// As [`apply`].
pub(super) fn paused(
    context: &Context<'_>,
    paused: bool,
    source: Option<String>,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    let change = ReplayChange { source, paused: Some(paused), ..ReplayChange::default() };
    apply(context, Setting::State, change, screen)
}

/// # Errors
/// When it is no share, with the one that is in force; or as [`apply`].
pub(super) fn canary(
    context: &Context<'_>,
    percent: &str,
    not_alone: &NotAlone,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    for_all(context, Setting::Canary, not_alone)?;
    let number = percent.trim().strip_suffix('%').unwrap_or(percent.trim());
    let digits = number.chars().all(|c| c.is_ascii_digit());
    match number.parse::<u8>() {
        Ok(share @ 1..=100) if digits => {
            let change = ReplayChange { canary_percent: Some(share), ..ReplayChange::default() };
            apply(context, Setting::Canary, change, screen)
        }
        Ok(_) | Err(_) => {
            let pausing = if number == "0" { "; pausing is `spillway replay pause`" } else { "" };
            let reason = format!("\"{percent}\" is no share of the receiving nodes: it is 1 to 100 percent{pausing}");
            Err(refused(context, Setting::Canary, None, &reason))
        }
    }
}

/// # Errors
/// As [`apply`].
pub(super) fn adaptive(
    context: &Context<'_>,
    state: OnOff,
    not_alone: &NotAlone,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    for_all(context, Setting::Adaptive, not_alone)?;
    let change = ReplayChange { adaptive: Some(state == OnOff::On), ..ReplayChange::default() };
    apply(context, Setting::Adaptive, change, screen)
}

/// # Errors
/// When a bound is no time or they are the wrong way round; or as [`apply`].
pub(super) fn range(context: &Context<'_>, asked: &Range, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    for_all(context, Setting::Range, &asked.not_alone)?;
    match bounds(context, asked.from.as_deref(), asked.to.as_deref()) {
        Ok(range) => {
            let change = ReplayChange { range: Some(range), ..ReplayChange::default() };
            apply(context, Setting::Range, change, screen)
        }
        Err(reason) => Err(refused(context, Setting::Range, None, &reason)),
    }
}

/// `glob`: `None` for all series again.
///
/// # Errors
/// When it is no glob; or as [`apply`].
pub(super) fn matching(
    context: &Context<'_>,
    glob: Option<String>,
    not_alone: &NotAlone,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    for_all(context, Setting::Match, not_alone)?;
    if let Some(reason) = glob.as_deref().and_then(|glob| check_glob(glob).err()) {
        return Err(refused(context, Setting::Match, None, &reason));
    }
    let change = ReplayChange { matching: Some(glob.unwrap_or_default()), ..ReplayChange::default() };
    apply(context, Setting::Match, change, screen)
}

/// Both ends as seconds since 1970.
///
/// # Errors
/// Says what is wrong.
pub(super) fn bounds(context: &Context<'_>, from: Option<&str>, to: Option<&str>) -> Result<TimeRange, String> {
    let parse = |text: Option<&str>| text.map(|text| moment::parse(text, context.now)).transpose();
    let range = TimeRange { from: parse(from)?, to: parse(to)? };
    match (range.from, range.to) {
        (Some(from), Some(to)) if from > to => Err(format!(
            "nothing lies between {} and {}: --from is the earlier one",
            moment::show(from),
            moment::show(to)
        )),
        (Some(_) | None, Some(_) | None) => Ok(range),
    }
}

/// # Errors
/// Says what is wrong.
pub(super) fn check_glob(glob: &str) -> Result<(), String> {
    if glob.is_empty() {
        return Err("an empty glob matches nothing".into());
    }
    match Pattern::compile(&Selector::Glob(glob.to_owned())) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("\"{glob}\" is no glob: {error}")),
    }
}

/// Says why nothing was sent, and what stays in force. Nodes that do not answer now are left out of that.
fn refused(context: &Context<'_>, setting: Setting, source: Option<&str>, reason: &str) -> Failure {
    let answers = ask(context, setting);
    let said = answers.iter().filter_map(|answer| Some((answer.node, answer.result.as_ref().ok()?)));
    let current: Vec<String> = said
        .map(|(node, status)| {
            let own = source.and_then(|source| name_at(node, source));
            format!("{} {}", node.name, setting.of(&status.settings, own))
        })
        .collect();
    let current = if current.is_empty() { "no node says".to_owned() } else { current.join(", ") };
    Failure::usage(anyhow!("{reason}; in force: {current}"))
}

/// Refuses a source where all of them share one setting.
fn for_all(context: &Context<'_>, setting: Setting, asked: &NotAlone) -> Result<(), Failure> {
    if asked.source.is_none() {
        return Ok(());
    }
    let known = known_sources(&source::known(context, &ask(context, Setting::Rate)));
    Err(Failure::usage(anyhow!("{}: {ONE_SOURCE}; {known}", setting.name())))
}

/// The nodes that take a setting, with what they say now. A final node that keeps no replay state is left out.
fn ask<'c>(context: &Context<'c>, setting: Setting) -> Vec<Answer<'c, ReplayStatus>> {
    let requests = context.nodes(setting.layers()).into_iter().map(|node| (node, Request::get(paths::REPLAY)));
    let mut answers = context.client.all::<ReplayStatus>(requests.collect());
    answers.retain(|answer| {
        answer.node.layer != Layer::Final || !answer.result.as_ref().is_err_and(|fault| fault.is_not_here())
    });
    answers
}

/// Sends a change to all nodes that it is for, at once.
///
/// # Errors
/// When there is no such node or source, or nothing can be printed.
fn apply(
    context: &Context<'_>,
    setting: Setting,
    mut change: ReplayChange,
    screen: &mut Screen<'_>,
) -> Result<Exit, Failure> {
    change.by.clone_from(&context.by);
    let before = targets(context, setting, change.source.as_deref())?;
    let mut requests = Vec::new();
    for answer in before.iter().filter(|answer| answer.result.is_ok()) {
        let source = change.source.as_deref().and_then(|source| name_at(answer.node, source));
        let change = ReplayChange { source: source.map(str::to_owned), ..change.clone() };
        requests.push((answer.node, Request::put(paths::REPLAY, &change)?));
    }
    let after = context.client.all::<ReplayStatus>(requests);
    let source = change.source.as_deref();
    let entries: Vec<Entry> = before.iter().map(|old| entry(setting, source, old, result_of(&after, old))).collect();
    let faults: Vec<_> = before
        .iter()
        .map(|old| match &old.result {
            Ok(_) => result_of(&after, old).and_then(|answer| answer.result.as_ref().err()),
            Err(fault) => Some(fault),
        })
        .collect();
    if screen.json {
        screen.json(&serde_json::json!({ "cluster": context.cluster.name, "nodes": entries }))?;
    } else {
        let mut table = Table::new(["NODE", "SETTING", "OLD", "NEW", "NOTE"]);
        for entry in &entries {
            table.row([
                entry.node.clone(),
                entry.setting.to_owned(),
                entry.old.clone().unwrap_or_default(),
                entry.new.clone().unwrap_or_default(),
                note(setting, entry),
            ]);
        }
        screen.text(&table.render())?;
        for (old, fault) in before.iter().zip(&faults) {
            if let Some(fault) = fault {
                screen.note(&complaint(&old.node.name, fault))?;
            }
        }
        if faults.iter().any(Option::is_some) && faults.iter().any(Option::is_none) {
            screen.note("spillway: the others have it; sending it again does no harm\n")?;
        }
    }
    Ok(exit_of_results(faults.into_iter()))
}

/// What one node answered to the change.
fn result_of<'a, 'c>(
    after: &'a [Answer<'c, ReplayStatus>],
    old: &Answer<'c, ReplayStatus>,
) -> Option<&'a Answer<'c, ReplayStatus>> {
    after.iter().find(|answer| answer.node.name == old.node.name)
}

/// Whom the change is for. A source decides that: its relay is every replayer's, a final node is its own.
fn targets<'c>(
    context: &Context<'c>,
    setting: Setting,
    source: Option<&str>,
) -> Result<Vec<Answer<'c, ReplayStatus>>, Failure> {
    let mut answers = ask(context, setting);
    if answers.is_empty() {
        return Err(Failure::usage(anyhow!("the cluster file has no replayer, and no final node that catches up")));
    }
    let Some(source) = source else { return Ok(answers) };
    source::check(context, &answers, source)?;
    let of_relay = context.nodes(&[Layer::Relay]).iter().any(|relay| relay.name == source);
    answers.retain(|answer| match &answer.result {
        // Whether it is for this node cannot be known: it is named.
        Err(_) => true,
        Ok(status) => {
            let replayer_of_relay = of_relay && answer.node.layer == Layer::Replayer;
            replayer_of_relay || status.sources.iter().any(|part| is_of(&part.source, &part.destination, source))
        }
    });
    Ok(answers)
}

fn entry(
    setting: Setting,
    source: Option<&str>,
    old: &Answer<'_, ReplayStatus>,
    new: Option<&Answer<'_, ReplayStatus>>,
) -> Entry {
    let source = source.and_then(|source| name_at(old.node, source));
    let value = |answer: &Answer<'_, ReplayStatus>| {
        answer.result.as_ref().ok().map(|status| setting.of(&status.settings, source))
    };
    let fault = old.result.as_ref().err().or(new.and_then(|answer| answer.result.as_ref().err()));
    Entry {
        node: old.node.name.clone(),
        layer: old.node.layer.as_str(),
        answers: fault.is_none(),
        error: fault.map(ToString::to_string),
        setting: setting.name(),
        old: value(old),
        new: new.and_then(value),
        settings: new.and_then(|answer| answer.result.as_ref().ok()).map(|status| status.settings.clone()),
    }
}

fn note(setting: Setting, entry: &Entry) -> String {
    if let Some(error) = &entry.error {
        return format!("not changed: {error}");
    }
    let Some(settings) = &entry.settings else { return String::new() };
    if setting != Setting::State && settings.paused {
        return "it is paused: `spillway replay resume`".into();
    }
    if entry.old == entry.new { "as it was".into() } else { String::new() }
}

/// `replay rate` without a rate.
fn show(context: &Context<'_>, source: Option<&str>, screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    let answers = targets(context, Setting::Rate, source)?;
    if screen.json {
        let entries: Vec<Entry> = answers
            .iter()
            .map(|answer| Entry { new: None, ..entry(Setting::Rate, source, answer, Some(answer)) })
            .collect();
        screen.json(&serde_json::json!({ "cluster": context.cluster.name, "nodes": entries }))?;
        return Ok(exit_of_results(answers.iter().map(|answer| answer.result.as_ref().err())));
    }
    let mut table = Table::new(["NODE", "SOURCE", "CEILING", "ALLOWED", "RATE NOW", "LIMITED BY", "ONLY"]);
    for answer in &answers {
        let Ok(status) = &answer.result else { continue };
        let (settings, name) = (&status.settings, &answer.node.name);
        table.row([
            name.clone(),
            "all".into(),
            Setting::Rate.of(settings, None),
            rate::show(status.ceiling_now),
            format!("{}/s", status.rate_now),
            status.limited_by.clone(),
            selection(settings),
        ]);
        for source in settings.sources.keys() {
            let own = Setting::Rate.of(settings, Some(source));
            let none = String::new;
            table.row([name.clone(), full_name(answer.node, source), own, none(), none(), none(), none()]);
        }
    }
    screen.text(&table.render())?;
    screen.note(&silent(&answers))?;
    Ok(exit_of_results(answers.iter().map(|answer| answer.result.as_ref().err())))
}

impl Setting {
    fn name(self) -> &'static str {
        match self {
            Setting::Rate => "rate",
            Setting::State => "state",
            Setting::Canary => "canary",
            Setting::Adaptive => "adaptive",
            Setting::Range => "range",
            Setting::Match => "match",
        }
    }

    /// Whom it is for. The catch-up of a final node has a rate and a pause, nothing else.
    fn layers(self) -> &'static [Layer] {
        match self {
            Setting::Rate | Setting::State => &[Layer::Replayer, Layer::Final],
            Setting::Canary | Setting::Adaptive | Setting::Range | Setting::Match => &[Layer::Replayer],
        }
    }

    /// For a person. `source`: that one's own, where it has one.
    fn of(self, settings: &ReplaySettings, source: Option<&str>) -> String {
        let own = source.and_then(|source| settings.sources.get(source));
        match self {
            Setting::Rate => match (source, own.and_then(|own| own.rate)) {
                (_, Some(own)) => rate::show(own),
                (Some(_), None) => format!("{} (as all)", rate::show(settings.rate)),
                (None, None) => rate::show(settings.rate),
            },
            Setting::State => {
                let paused = if source.is_some() { own.is_some_and(|own| own.paused) } else { settings.paused };
                match (paused, settings.cautious && source.is_none()) {
                    (true, _) => "paused".into(),
                    (false, true) => "cautious".into(),
                    (false, false) => "running".into(),
                }
            }
            Setting::Canary => format!("{}%", settings.canary_percent),
            Setting::Adaptive => if settings.adaptive { "on" } else { "off" }.into(),
            Setting::Range if settings.from.is_none() && settings.to.is_none() => "all".into(),
            Setting::Range => span(settings.from, settings.to),
            Setting::Match => match settings.matching.as_deref() {
                None | Some("") => "all".into(),
                Some(glob) => glob.to_owned(),
            },
        }
    }
}
