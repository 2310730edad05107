//! What an operator may order from the screen, with what it would do.

use admin_api::{ReplayChange, ReplayStatus};
use engine::rate;

use super::model::Model;
use crate::amount::count;
use crate::table::duration;

/// One order, to all nodes that replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Rate(u64),
    Pause,
    Resume,
}

impl Order {
    /// In the words of the command that does the same.
    pub(crate) fn command(self) -> String {
        match self {
            Order::Rate(points) => format!("spillway replay rate {}", rate::show(points)),
            Order::Pause => "spillway replay pause".to_owned(),
            Order::Resume => "spillway replay resume".to_owned(),
        }
    }

    pub(crate) fn change(self, by: &str) -> ReplayChange {
        let change = ReplayChange { by: by.to_owned(), ..ReplayChange::default() };
        match self {
            Order::Rate(points) => ReplayChange { rate: Some(points), ..change },
            Order::Pause => ReplayChange { paused: Some(true), ..change },
            Order::Resume => ReplayChange { paused: Some(false), ..change },
        }
    }

    /// What it would change, a line a node; nodes on which it changes nothing say so.
    pub(crate) fn preview(self, model: &Model) -> Vec<String> {
        let lines: Vec<String> =
            model.replays().map(|(node, replay)| format!("{}: {}", node.name, self.effect(replay))).collect();
        if lines.is_empty() { vec!["no node that replays answers: nothing would change".to_owned()] } else { lines }
    }

    fn effect(self, replay: &ReplayStatus) -> String {
        let settings = &replay.settings;
        match self {
            Order::Rate(points) if points == settings.rate => format!("is at {} already", rate::show(points)),
            Order::Rate(points) => {
                let paused = if settings.paused { ", stays paused" } else { "" };
                format!("{} -> {}{paused}{}", rate::show(settings.rate), rate::show(points), at_best(replay, points))
            }
            Order::Pause if settings.paused => "is paused already".to_owned(),
            Order::Pause => format!("{} points would wait", count(replay.backlog_points)),
            Order::Resume if settings.paused => {
                format!("goes on at up to {}{}", rate::show(settings.rate), at_best(replay, settings.rate))
            }
            Order::Resume => "is not paused".to_owned(),
        }
    }
}

/// How long the backlog takes when nothing but the ceiling limits it.
fn at_best(replay: &ReplayStatus, points: u64) -> String {
    match replay.backlog_points.div_ceil(points.max(1)) {
        0 => String::new(),
        seconds => format!(", {} points take {} at best", count(replay.backlog_points), duration(seconds)),
    }
}
