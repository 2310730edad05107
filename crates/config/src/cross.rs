//! What no section can see alone.

use std::time::Duration;

use engine::route::{RouteSpec, Target};
use engine::rule::RuleSpec;

use crate::cluster::{Cluster, OwnMetrics, SpillSync};
use crate::document::Document;
use crate::nodes::NeedsFinal;
use crate::quantity::{show_bytes, show_duration};
use crate::rules::store_index;
use crate::setting::quote;
use crate::stores::StoreDraft;

/// Looks up the store that own metrics go to.
pub(crate) fn own_metrics(document: &Document<'_>, wanted: OwnMetrics<String>, stores: &[StoreDraft]) -> OwnMetrics {
    match wanted {
        OwnMetrics::Off => OwnMetrics::Off,
        OwnMetrics::Route => OwnMetrics::Route,
        OwnMetrics::Store(name) => {
            store_index(document, "telemetry.graphite", &name, stores).map_or(OwnMetrics::Off, OwnMetrics::Store)
        }
    }
}

/// The first key that needs the final layer.
pub(crate) fn needs_final(routes: &[(String, RouteSpec)], rules: &[(String, RuleSpec)]) -> Option<NeedsFinal> {
    if let Some((path, rule)) = rules.first() {
        return Some(NeedsFinal { key: path.clone(), what: format!("rule {}", quote(&rule.name)) });
    }
    let (path, _) = routes.iter().find(|(_, route)| route.to.contains(&Target::Aggregate))?;
    Some(NeedsFinal { key: format!("{path}.to"), what: "the target \"aggregate\"".into() })
}

/// Parts that nothing uses. Says nothing of a file with errors: a misspelt name makes its target look unused.
pub(crate) fn check_usage(
    document: &Document<'_>,
    stores: &[StoreDraft],
    routes: &[(String, RouteSpec)],
    rules: &[(String, RuleSpec)],
) {
    if document.has_errors() {
        return;
    }
    let aggregated = routes.iter().find(|(_, route)| route.to.contains(&Target::Aggregate));
    match (rules.first(), aggregated) {
        (Some(_), None) => {
            document.warning(
                "rule",
                "no route leads to \"aggregate\", so no rule sees a line",
                "add it to a route's `to`",
            );
        }
        (None, Some((path, _))) => {
            document.warning(
                &format!("{path}.to"),
                "\"aggregate\" without any `[[rule]]` computes nothing",
                "add a rule",
            );
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    for (index, store) in stores.iter().enumerate() {
        let used = routes.iter().any(|(_, route)| route.to.contains(&Target::Store(index)))
            || rules.iter().any(|(_, rule)| rule.to.contains(&index));
        if let (Some(name), false) = (&store.name, used) {
            document.warning(&format!("{}.name", store.path), format!("nothing leads to store {}", quote(name)), "");
        }
    }
    if routes.iter().all(|(_, route)| route.to.is_empty()) && stores.is_empty() && !document.has("route") {
        document.missing("store", "there is no `[[store]]` and no `[[route]]`", "every line would be lost");
    }
}

/// Times and sizes that contradict each other. Each line is one law, with its reason.
pub(crate) fn check_times_and_sizes(document: &Document<'_>, cluster: &Cluster, rule_paths: &[String]) {
    let Cluster { send, final_, receive, replay, output, supervise, .. } = cluster;
    longer(
        document,
        ("send.ack_timeout", send.ack_timeout),
        ("final.flush", final_.flush),
        "nothing can be durable before it was flushed, so every batch would be sent twice",
    );
    longer(
        document,
        ("send.ack_timeout", send.ack_timeout),
        ("send.linger", send.linger),
        "a batch may be as old as that before it is sent",
    );
    longer(
        document,
        ("supervise.within", supervise.within),
        ("supervise.watchdog", supervise.watchdog),
        "hangs would never be counted together",
    );
    longer(
        document,
        ("output.linger_bound", output.linger_bound),
        ("output.receipt_timeout", output.receipt_timeout),
        "unconfirmed bytes would be re-sent while their receipt may still come",
    );
    larger(
        document,
        ("send.retain", send.retain_bytes),
        ("send.batch", send.batch_bytes),
        "not one batch could be held",
    );
    larger(
        document,
        ("receive.max_line", receive.max_line_bytes),
        ("receive.max_name", receive.max_name_bytes),
        "a name is only part of its line",
    );
    larger(
        document,
        ("receive.buffer", receive.buffer_bytes),
        ("receive.max_line", receive.max_line_bytes),
        "not one line could be held",
    );
    if send.batch_bytes < receive.max_line_bytes {
        contradiction(
            document,
            ("send.batch", show_bytes(as_u64(send.batch_bytes))),
            "smaller than",
            ("receive.max_line", show_bytes(as_u64(receive.max_line_bytes))),
            "a line must fit into a batch",
        );
    }
    if replay.floor > replay.rate {
        contradiction(
            document,
            ("replay.floor", format!("{}/s", replay.floor.get())),
            "above",
            ("replay.rate", format!("{}/s", replay.rate.get())),
            "the floor lies below the ceiling",
        );
    }
    check_spill(document, cluster);
    for (path, rule) in rule_paths.iter().zip(&cluster.rules) {
        let open = Duration::from_secs(u64::from(rule.interval) + u64::from(rule.grace));
        if open > final_.horizon {
            contradiction(
                document,
                (&format!("{path}.interval"), format!("with grace {}", show_duration(open))),
                "longer than",
                ("final.horizon", show_duration(final_.horizon)),
                "a window would be too old before it is emitted",
            );
        }
    }
}

/// A spill that works, but hardly as it is meant.
fn check_spill(document: &Document<'_>, cluster: &Cluster) {
    let Cluster { send, spill, .. } = cluster;
    let retain = as_u64(send.retain_bytes);
    if spill.quota_bytes <= retain {
        let (quota, retain) = (show_bytes(spill.quota_bytes), show_bytes(retain));
        let message = format!("{quota} is not larger than send.retain ({retain})");
        let help = "a relay that stops spills what it holds: part of that would not fit";
        warn_at(document, "spill.quota", "send.retain", message, help);
    }
    if let SpillSync::Every(every) = spill.sync
        && every > send.ack_timeout
    {
        let (every, timeout) = (show_duration(every), show_duration(send.ack_timeout));
        let message = format!("{every} is longer than send.ack_timeout ({timeout})");
        warn_at(
            document,
            "spill.sync",
            "send.ack_timeout",
            message,
            "what is spilled stays in memory until it is synced",
        );
    }
}

/// At the key that stands in the file; the other may be a default.
fn warn_at(document: &Document<'_>, key: &str, other: &str, message: String, help: &str) {
    if document.has(key) {
        document.warning(key, message, help);
    } else {
        document.warning(other, format!("{key}: {message}"), help);
    }
}

fn longer(document: &Document<'_>, (key, value): (&str, Duration), (other, least): (&str, Duration), reason: &str) {
    if value <= least {
        contradiction(document, (key, show_duration(value)), "not longer than", (other, show_duration(least)), reason);
    }
}

fn larger(document: &Document<'_>, (key, value): (&str, usize), (other, least): (&str, usize), reason: &str) {
    if value <= least {
        let shown = (key, show_bytes(as_u64(value)));
        contradiction(document, shown, "not larger than", (other, show_bytes(as_u64(least))), reason);
    }
}

/// Marks the key that stands in the file; the other may be a default.
fn contradiction(
    document: &Document<'_>,
    (key, value): (&str, String),
    relation: &str,
    (other, limit): (&str, String),
    reason: &str,
) {
    let message = format!("{value} is {relation} {other} ({limit})");
    if document.has(key) && document.has(other) {
        document.clash(key, message, reason, other, "contradicts this");
    } else if document.has(key) {
        document.error(key, message, reason);
    } else {
        document.error(other, format!("{key}: {message}"), reason);
    }
}

fn as_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
