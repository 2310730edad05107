//! What stores missed, as a replay of its own: its status, and the operator's hand on it.

use admin::Refusal;
use admin_api::{AuditEntry, ReplayChange, ReplaySource, ReplayStatus};
use engine::final_node::cursor::Waiting;
use engine::time::UnixSeconds;

use super::role::FinalRole;
use crate::partial_lock as lock;

impl FinalRole {
    /// For `GET /v1/replay`.
    pub(crate) fn replay_status(&self) -> ReplayStatus {
        let settings = self.catch_up.settings();
        let now = u64::from(self.setup.clock.unix().0);
        let sources: Vec<ReplaySource> = (0..self.targets.len()).map(|target| self.source(target)).collect();
        let backlog_points: u64 = sources.iter().map(|source| source.pending_points).sum();
        let rate_now: u64 = sources.iter().map(|source| source.rate_now).sum();
        let oldest = sources.iter().filter_map(|source| source.oldest).min();
        let horizon_seconds = self.setup.horizon.as_secs();
        let age = oldest.map_or(0, |oldest| now.saturating_sub(oldest));
        let ceiling_now = if settings.paused { 0 } else { settings.rate };
        let limited_by = match (settings.paused, backlog_points) {
            (true, _) => "paused",
            (false, 0) => "idle",
            (false, _) => "operator",
        };
        ReplayStatus {
            node: self.setup.node.clone(),
            layer: "final".into(),
            rate_now,
            ceiling_now,
            limited_by: limited_by.into(),
            backlog_points,
            eta_seconds: backlog_points.checked_div(rate_now),
            oldest,
            horizon_seconds,
            horizon_used_percent: (age * 100).checked_div(horizon_seconds).unwrap_or(0),
            sources,
            settings,
            ..ReplayStatus::default()
        }
    }

    fn source(&self, target: usize) -> ReplaySource {
        let of = &self.targets[target];
        let waiting = self.states.iter().fold(Waiting::default(), |sum, state| {
            sum.and(lock(state).waiting.get(target).copied().unwrap_or_default())
        });
        let name = of.source();
        let own = self.catch_up.settings().sources.get(&name).cloned().unwrap_or_default();
        let view = of.view(self.setup.clock.now());
        let limited_by = match (own.paused, waiting.blocks, view.here) {
            (true, ..) => "paused",
            (false, 0, _) => "idle",
            (false, _, false) => "network",
            (false, _, true) if view.roomy => "operator",
            (false, _, true) => "receiver",
        };
        let seconds = |window: UnixSeconds| u64::from(window.0);
        let refused = [("too_old".to_owned(), waiting.expired_lines)].into_iter().filter(|(_, lines)| *lines > 0);
        ReplaySource {
            source: self.setup.node.clone(),
            destination: name,
            connected: view.here,
            pending_points: waiting.lines,
            pending_batches: waiting.blocks,
            done_points: of.lines_caught_up(),
            refused: refused.collect(),
            oldest: waiting.oldest.map(seconds),
            newest: waiting.newest.map(seconds),
            rate_now: of.rate(self.setup.clock.now()),
            paused: own.paused,
            rate: own.rate,
            limited_by: limited_by.into(),
            ..ReplaySource::default()
        }
    }

    /// For `PUT /v1/replay`. A source may have the node's name before it, as the CLI shows it; the name alone is all of
    /// them.
    ///
    /// # Errors
    /// Says what is wrong and what is in force.
    pub(crate) fn change_replay(&self, change: &ReplayChange) -> Result<(ReplayStatus, Vec<AuditEntry>), Refusal> {
        let sources: Vec<String> = self.targets.iter().map(super::targets::Target::source).collect();
        let source = change.source.as_deref().and_then(|source| own_name(&self.setup.node, source));
        let change = ReplayChange { source: source.map(str::to_owned), ..change.clone() };
        let changed = self.catch_up.change(&change, &sources, self.setup.clock.unix())?;
        Ok((self.replay_status(), changed))
    }
}

/// What the node itself calls a source; `None`: all of them.
fn own_name<'s>(node: &str, source: &'s str) -> Option<&'s str> {
    match source.strip_prefix(node) {
        Some("") => None,
        Some(rest) => Some(rest.strip_prefix('/').unwrap_or(source)),
        None => Some(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_may_have_the_node_s_name_before_it() {
        for (source, own) in [
            ("windows:carbon/a:1", Some("windows:carbon/a:1")),
            ("final-1/windows:carbon/a:1", Some("windows:carbon/a:1")),
            ("final-1", None),
            ("final-10/windows:carbon/a:1", Some("final-10/windows:carbon/a:1")),
            ("final-10", Some("final-10")),
        ] {
            assert_eq!(own_name("final-1", source), own, "{source}");
        }
    }
}
