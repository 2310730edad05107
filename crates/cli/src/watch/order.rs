//! What an operator may order from the screen, with what it would do.

use admin_api::{ModeChange, ReplayChange, ReplayStatus};
use engine::health::Mode;
use engine::rate;
use engine::time::UnixSeconds;

use super::model::Model;
use crate::amount::count;
use crate::order::{Asking, Line, end};
use crate::table::duration;

/// One order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// To all nodes that replay.
    Rate(u64),
    Pause,
    Resume,
    /// To all nodes. `layer`: `None` for all layers. `lasts`: seconds, after which it reverts.
    Mode {
        layer: Option<String>,
        mode: Mode,
        lasts: Option<u64>,
    },
    Drain(String),
    Undrain(String),
}

/// Whom it is for, and in which words.
#[derive(Debug)]
pub(super) enum Sending {
    Replaying(ReplayChange),
    All(anyhow::Result<Asking>),
}

impl Order {
    /// In the words of the command that does the same.
    pub(crate) fn command(&self) -> String {
        match self {
            Order::Rate(points) => format!("spillway replay rate {}", rate::show(*points)),
            Order::Pause => "spillway replay pause".to_owned(),
            Order::Resume => "spillway replay resume".to_owned(),
            Order::Mode { layer, mode, lasts } => {
                let which = layer.as_ref().map_or("--all".to_owned(), |layer| format!("--layer {layer}"));
                let lasts = lasts.map_or(String::new(), |seconds| format!(" --for {}", written(seconds)));
                format!("spillway health mode {} {which}{lasts}", mode.as_str())
            }
            Order::Drain(node) => format!("spillway node drain {node}"),
            Order::Undrain(node) => format!("spillway node undrain {node}"),
        }
    }

    /// `now`: seconds since 1970.
    pub(super) fn sending(&self, by: &str, now: UnixSeconds, dry_run: bool) -> Sending {
        let change = ReplayChange { by: by.to_owned(), ..ReplayChange::default() };
        match self {
            Order::Rate(points) => Sending::Replaying(ReplayChange { rate: Some(*points), ..change }),
            Order::Pause => Sending::Replaying(ReplayChange { paused: Some(true), ..change }),
            Order::Resume => Sending::Replaying(ReplayChange { paused: Some(false), ..change }),
            Order::Mode { layer, mode, lasts } => Sending::All(Asking::mode(&ModeChange {
                layer: layer.clone(),
                mode: mode.as_str().to_owned(),
                until: lasts.map(|seconds| end(now, seconds)),
                dry_run,
                by: by.to_owned(),
            })),
            Order::Drain(node) => Sending::All(Asking::drain(node, dry_run, by)),
            Order::Undrain(node) => Sending::All(Asking::undrain(node, dry_run, by)),
        }
    }

    /// What it would change, if that is known from what was seen: a line a node; nodes on which it changes nothing say so.
    /// `None`: the nodes must be asked.
    pub(crate) fn preview(&self, model: &Model) -> Option<Vec<Line>> {
        let lines: Vec<Line> = match self {
            Order::Rate(points) => each(model, |replay| rate_effect(replay, *points)),
            Order::Pause => each(model, pause_effect),
            Order::Resume => each(model, resume_effect),
            Order::Mode { .. } | Order::Drain(_) | Order::Undrain(_) => return None,
        };
        let nobody = || vec![Line::bad("no node that replays answers: nothing would change")];
        Some(if lines.is_empty() { nobody() } else { lines })
    }
}

fn each(model: &Model, effect: impl Fn(&ReplayStatus) -> String) -> Vec<Line> {
    model.replays().map(|(node, replay)| Line::plain(format!("{}: {}", node.name, effect(replay)))).collect()
}

fn rate_effect(replay: &ReplayStatus, points: u64) -> String {
    let settings = &replay.settings;
    if points == settings.rate {
        return format!("is at {} already", rate::show(points));
    }
    let paused = if settings.paused { ", stays paused" } else { "" };
    format!("{} -> {}{paused}{}", rate::show(settings.rate), rate::show(points), at_best(replay, points))
}

fn pause_effect(replay: &ReplayStatus) -> String {
    if replay.settings.paused {
        "is paused already".to_owned()
    } else {
        format!("{} points would wait", count(replay.backlog_points))
    }
}

fn resume_effect(replay: &ReplayStatus) -> String {
    let settings = &replay.settings;
    if settings.paused {
        format!("goes on at up to {}{}", rate::show(settings.rate), at_best(replay, settings.rate))
    } else {
        "is not paused".to_owned()
    }
}

/// As `--for` takes it.
fn written(seconds: u64) -> String {
    match (seconds % 3600, seconds % 60) {
        (0, _) => format!("{}h", seconds / 3600),
        (_, 0) => format!("{}m", seconds / 60),
        (_, _) => format!("{seconds}s"),
    }
}

/// How long the backlog takes when nothing but the ceiling limits it.
fn at_best(replay: &ReplayStatus, points: u64) -> String {
    match replay.backlog_points.div_ceil(points.max(1)) {
        0 => String::new(),
        seconds => format!(", {} points take {} at best", count(replay.backlog_points), duration(seconds)),
    }
}
