//! A whole cluster in one thread: the machines of `engine`, driven by simulated shells over a simulated network, clock and
//! disks, through bad days that a seed draws. See `README.md` for how to run it and to read a failing seed.
//!
//! * [`world`] has the time and the queue of what will happen, [`net`] the connections, [`disk`] the disks, [`faults`] what
//!   goes wrong, and [`strike`] does it.
//! * The shells: [`relay`] with [`raw`], [`live`] and [`spill`], [`partial`], [`finals`] with [`sender`], [`replayer`], [`plain`]. They hold no
//!   decision; what their real counterparts decide outside of `engine` is named in `README.md`.
//! * [`truth`] and [`lines`] know what no node knows; [`oracle`] says what stores must hold; [`check`] has the invariants;
//!   [`coverage`] says what a thousand seeds must have met.
//! * [`run`] is one run, [`shrink`] makes a failing one small.
#![allow(clippy::wildcard_enum_match_arm, reason = "a shell ends a link that says any frame which it does not take")]
#![allow(missing_debug_implementations, reason = "the machines inside are not for printing; `trace` says what happens")]

pub mod book;
pub mod check;
pub mod coverage;
pub mod disk;
pub mod faults;
pub mod file;
pub mod finals;
pub mod lines;
pub mod live;
pub mod net;
pub mod node;
pub mod oracle;
pub mod partial;
pub mod plain;
pub mod rare;
pub mod raw;
pub mod records;
pub mod relay;
pub mod replayer;
pub mod rng;
pub mod rot;
pub mod run;
pub mod sender;
pub mod setup;
pub mod shrink;
pub mod spill;
pub mod strike;
pub mod trace;
pub mod truth;
pub mod world;

pub use run::{Plan, Report, run};

/// The deliberate faults in the machines (`engine::mutants`), each of which some seed must notice.
pub const MUTANTS: [&str; 34] = [
    "no_dedupe",
    "retired_forgotten",
    "included_not_in_checkpoint",
    "replayed_twice",
    "checkpoint_covers_pending",
    "merge_dropped",
    "replay_forgets_ids",
    "record_number_reused",
    "cursor_skips",
    "epoch_reused",
    "ack_before_log",
    "refused_not_rebuilt",
    "flush_not_sent_again",
    "duplicate_counts",
    "shard_forgets",
    "points_without_names",
    "late_dropped",
    "corrections_not_emitted",
    "restored_is_clean",
    "no_reassert",
    "no_reassert_at_start",
    "not_sent_again",
    "end_is_a_receipt",
    "durable_too_wide",
    "claims_too_much",
    "retires_itself",
    "recover_forgets",
    "link_loss_forgets",
    "released_is_delivered",
    "life_ignored",
    "floor_ignored",
    "no_sync_at_open",
    "head_jumps",
    "log_head_too_far",
];
