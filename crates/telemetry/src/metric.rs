//! Every metric there is.
//!
//! Names follow Prometheus: `spillway_<things>_<unit>`, counters end in `_total`. A label's values come from a closed
//! enum or from the config (a destination, a worker), never from a line or a peer's address.

/// Whether a metric only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
}

macro_rules! metrics {
    ($($variant:ident, $kind:ident, $name:literal, [$($label:literal),*], $help:literal;)*) => {
        /// A metric's name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Metric {
            $(#[doc = $help] $variant,)*
        }

        impl Metric {
            /// Every metric, in the order of the enum.
            pub const ALL: &'static [Metric] = &[$(Metric::$variant,)*];

            /// The Prometheus name.
            pub const fn name(self) -> &'static str {
                match self { $(Metric::$variant => concat!("spillway_", $name),)* }
            }

            /// Whether it only grows.
            pub const fn kind(self) -> Kind {
                match self { $(Metric::$variant => Kind::$kind,)* }
            }

            /// What it says, in one sentence without a full stop.
            pub const fn help(self) -> &'static str {
                match self { $(Metric::$variant => $help,)* }
            }

            /// The labels it takes, in their order.
            pub const fn labels(self) -> &'static [&'static str] {
                match self { $(Metric::$variant => &[$($label),*],)* }
            }
        }
    };
}

metrics! {
    ReceivedPoints, Counter, "received_points_total", [],
        "Lines (relay) or points (aggregator) taken in";
    ReceivedBytes, Counter, "received_bytes_total", [],
        "Bytes read from clients or links";
    RejectedPoints, Counter, "rejected_points_total", ["reason"],
        "Lines that are no points";
    AcceptedPoints, Counter, "accepted_points_total", [],
        "Lines parsed, or points taken up";
    RoutedPoints, Counter, "routed_points_total", [],
        "Accepted points owed to at least one destination";
    DroppedPoints, Counter, "dropped_points_total", ["reason"],
        "Accepted points owed to no destination";
    OwedPoints, Counter, "destination_owed_points_total", ["destination"],
        "Points owed to a destination";
    SentPoints, Counter, "destination_sent_points_total", ["destination"],
        "Points written to a destination, confirmed or not, re-sends included";
    DeliveredPoints, Counter, "destination_delivered_points_total", ["destination"],
        "Points a destination has confirmed";
    UnconfirmedPoints, Gauge, "destination_unconfirmed_points", ["destination"],
        "Points written to a plain store that gave no receipt yet";
    InFlightPoints, Gauge, "destination_in_flight_points", ["destination"],
        "Points held for a destination until it confirms them";
    SpillPendingPoints, Gauge, "destination_spill_pending_points", ["destination"],
        "Points on disk for a destination";
    SpillMode, Gauge, "spill_mode", ["mode"],
        "1 for what the spill is able to do: ok, quota, disk_full, read_only, error or starting";
    SpillBytes, Gauge, "spill_bytes", [],
        "Bytes that the spill occupies on disk";
    SpillQuotaBytes, Gauge, "spill_quota_bytes", [],
        "Bytes that it may occupy";
    SpillLanePendingPoints, Gauge, "spill_lane_pending_points", ["lane"],
        "Points of a lane of the spill that are neither settled nor dropped";
    SpillLanePendingBytes, Gauge, "spill_lane_pending_bytes", ["lane"],
        "Their bytes on disk";
    SpillWrittenPoints, Counter, "spill_written_points_total", [],
        "Points written to the spill";
    SpillWrittenBytes, Counter, "spill_written_bytes_total", [],
        "Bytes of records written to the spill, compressed";
    SpillSettledPoints, Counter, "spill_settled_points_total", ["lane"],
        "Points of a lane of the spill that were delivered, over all lives of the relay";
    SpillGaps, Gauge, "spill_gaps", ["lane"],
        "Ranges of a lane of the spill that are gone, by damage or by an operator";
    SpillSyncs, Counter, "spill_syncs_total", [],
        "Times that the spill was forced to the disk";
    SpillSyncSeconds, Counter, "spill_sync_seconds_total", [],
        "Time that this took";
    DestinationDroppedPoints, Counter, "destination_dropped_points_total", ["destination", "reason"],
        "Points owed to a destination and given up";
    LostPoints, Counter, "lost_points_total", [],
        "Points dropped, but not by a route or an operator; there from the start, so that its first rise is seen";
    UnaccountedPoints, Gauge, "unaccounted_points", [],
        "What the books miss; anything but zero is a bug";
    ConnectionsOpen, Gauge, "connections_open", [],
        "Client connections open now";
    ConnectionsOpened, Counter, "connections_opened_total", [],
        "Client connections accepted";
    ConnectionsClosed, Counter, "connections_closed_total", ["reason"],
        "Client connections ended";
    ConnectionPanics, Counter, "connection_panics_total", [],
        "Connections that ended by a panic; anything but zero is a bug";
    AcceptPauses, Counter, "accept_pauses_total", ["reason"],
        "Times that a listener rested because of an error of accept";
    WorkerRestarts, Counter, "worker_restarts_total", ["worker"],
        "Restarts of a worker";
    WorkerHangs, Counter, "worker_hangs_total", ["worker"],
        "Times that a worker was given up as hung";
    WorkerHeartbeatAge, Gauge, "worker_heartbeat_age_seconds", ["worker"],
        "Time since a worker's latest heartbeat";
    WorkerBusy, Gauge, "worker_busy_ratio", ["worker"],
        "Share of its time that a worker spent at work";
    QueueBytes, Gauge, "queue_bytes", ["queue"],
        "Bytes queued and in hand";
    QueueLimitBytes, Gauge, "queue_limit_bytes", ["queue"],
        "Bytes that a queue may hold";
    QueueOldest, Gauge, "queue_oldest_seconds", ["queue"],
        "Age of the oldest item in a queue";
    Backpressure, Counter, "backpressure_seconds_total", [],
        "Time for which clients were not read because a queue was full";
    LinkUp, Gauge, "link_up", ["peer"],
        "Whether the link to a peer is up";
    PoolEligible, Gauge, "pool_eligible", ["pool", "peer"],
        "1 for a peer that may get work from this node, 0 for one that health or an order keeps it from";
    PoolLenient, Gauge, "pool_lenient", ["pool"],
        "1 while a link that is up is enough for work, 0 while peers must have proven themselves";
    PoolMode, Gauge, "pool_mode", ["pool", "mode"],
        "1 for the health mode in force: strict, lenient, or auto, which chooses between them";
    PoolEjections, Counter, "pool_ejections_total", ["peer"],
        "Times that a peer was put out for a while because it was far slower than the others";
    CanariesAcked, Counter, "canaries_acked_total", ["peer"],
        "Empty batches that came through a peer to the final layer's log and back in time";
    CanariesFailed, Counter, "canaries_failed_total", ["peer"],
        "Empty batches that did not, while those through another peer did";
    LinkReconnects, Counter, "link_reconnects_total", ["peer"],
        "Attempts to open a link to a peer";
    LinkInFlightBytes, Gauge, "link_in_flight_bytes", ["peer"],
        "Bytes sent to a peer and not durable yet";
    LinkOldestUnacked, Gauge, "link_oldest_unacked_seconds", ["peer"],
        "Age of the oldest batch that a peer has not made durable";
    Durable, Gauge, "durable_seconds", ["percentile"],
        "Time from sealing to durable within which so many percent of the batches were, since the start";
    LinkResends, Counter, "link_resends_total", ["peer"],
        "Batches sent again";
    LinkNacks, Counter, "link_nacks_total", ["peer", "reason"],
        "Batches that a peer refused";
    LinksClosed, Counter, "links_closed_total", ["reason"],
        "Links that ended, at the side that counts";
    DuplicateBatches, Counter, "duplicate_batches_total", [],
        "Batches that had been merged before; they changed nothing";
    ForgottenPoints, Gauge, "forgotten_points", ["peer"],
        "Points that were given up with a node that an operator has forgotten, as far as anybody could say";
    ReplayRate, Gauge, "replay_points_per_second", [],
        "Points that a replayer sends in a second, mean of the last five";
    ReplayCeiling, Gauge, "replay_ceiling_points_per_second", [],
        "Points that a replayer may send in a second now";
    ReplayBacklog, Gauge, "replay_backlog_points", ["source"],
        "Points that wait in the spill of a relay";
    ReplayLeased, Gauge, "replay_leased_points", [],
        "Points that a replayer has borrowed and not settled";
    ReplayLimited, Gauge, "replay_limited", ["by"],
        "1 for what holds the replay's rate where it is";
    ReplayHorizonUsed, Gauge, "replay_horizon_used_ratio", [],
        "Age of the oldest point that waits, of the horizon; above 1 it will be refused as too old";
    ReplaySettled, Counter, "replay_settled_points_total", ["outcome"],
        "Borrowed points by what became of them";
    WindowsOpen, Gauge, "windows_open", [],
        "Windows that may still take points";
    SeriesOpen, Gauge, "series_open", [],
        "Series with an open window";
    EmittedPoints, Counter, "emitted_points_total", [],
        "Aggregates emitted, corrections included";
    Corrections, Counter, "corrections_total", [],
        "Aggregates emitted again because points came late";
    WindowsWaiting, Gauge, "windows_waiting", [],
        "Windows that a store has missed and is to get, counted for each of its addresses";
    WindowsSealedEarly, Counter, "windows_sealed_early_total", [],
        "Times that the oldest windows were given up before the horizon, for want of disk";
    FlushesPutOff, Counter, "flushes_put_off_total", [],
        "Flushes that got no answer because disk or memory did not let them; they come again";
    StoreMode, Gauge, "store_mode", ["mode"],
        "1 for what the disk of the node lets it do";
    StoreBytes, Gauge, "store_bytes", [],
        "Bytes that the store of the node occupies";
    StoreQuotaBytes, Gauge, "store_quota_bytes", [],
        "Bytes that it may occupy";
    IncludedLost, Gauge, "included_lost", [],
        "1 if the node does not know any more which batches it merged before its damage";
    LatePoints, Counter, "late_points_total", ["action"],
        "Points that came after their window was first emitted";
    TlsCertificateExpires, Gauge, "tls_certificate_expires_timestamp_seconds", [],
        "When the node's certificate, or one of those behind it, expires; seconds since 1970";
    TlsReloads, Counter, "tls_reloads_total", ["outcome"],
        "Times that TLS files had changed and were taken (done) or could not be (failed)";
    TlsFilesRefused, Gauge, "tls_files_refused", [],
        "1 while the TLS files that are there cannot be used, and those read before are";
    TlsHandshakes, Counter, "tls_handshakes_total", ["port", "side", "outcome"],
        "TLS handshakes by how they ended: done, or a reason";
    VerdictState, Gauge, "verdict", ["verdict"],
        "1 for the verdict that the node gives on itself";
    Uptime, Gauge, "uptime_seconds", [],
        "Time since the node started";
    ResidentBytes, Gauge, "resident_bytes", [],
        "Memory of the node's process; nodes of one process share it";
    NotificationsSent, Counter, "notifications_sent_total", ["endpoint"],
        "Notices that an endpoint has taken";
    NotificationsFailed, Counter, "notifications_failed_total", ["endpoint", "reason"],
        "Attempts to tell an endpoint that failed; the notice is tried again";
    NotificationsGivenUp, Counter, "notifications_given_up_total", ["endpoint", "reason"],
        "Notices that no attempt will be made for any more";
    NotificationsWaiting, Gauge, "notifications_waiting", ["endpoint"],
        "Notices that an endpoint has not taken yet";
    AdminRefused, Counter, "admin_refused_total", ["reason"],
        "Requests that the admin API refused: no_token, wrong_token, too_many of them from one address, or role";
    AdminTokenFileUnusable, Gauge, "admin_token_file_unusable", ["role"],
        "1 while the file with the tokens of a role cannot be used; those that it last had stay in force";
    LogLinesSwallowed, Counter, "log_lines_swallowed_total", ["site"],
        "Log lines not written because their site repeats";
    BuildInfo, Gauge, "build_info", ["version"],
        "Always 1; the label says which build";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_metric_takes_a_label_that_every_sample_has() {
        for metric in Metric::ALL {
            let taken = metric.labels().iter().any(|label| ["node", "layer"].contains(label));
            assert!(!taken, "{metric:?}: node and layer are those of the node that is asked");
        }
    }
}
