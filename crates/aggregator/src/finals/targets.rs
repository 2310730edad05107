//! The addresses of all stores, each with what its sender says.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine::final_node::emit::View;
use engine::store_link::{Block, Phase};
use engine::time::Mono;
use node::Store;
use output::StoreSender;

/// A store without a connection for so long is away: its windows wait here, not in its sender. A rotation takes less.
const AWAY_AFTER: Duration = Duration::from_secs(3);
const RATE_OVER: Duration = Duration::from_secs(5);
/// What a store missed goes to its sender while that holds less than this; a sender asks for its receipt at 64 MiB.
const ROOM_BYTES: u64 = 128 << 20;

/// One address of a store.
#[derive(Debug)]
pub(crate) struct Target {
    /// `<store>/<host:port>`: what is written about it on disk.
    pub(crate) name: String,
    sender: StoreSender,
    /// When its connection was last seen, in nanoseconds of the clock; 0: never.
    seen: AtomicU64,
    caught_up: AtomicU64,
    /// `caught_up` at moments of the last seconds, for its rate.
    rates: Mutex<VecDeque<(Mono, u64)>>,
}

impl Target {
    /// All addresses, those of the first store first.
    pub(crate) fn all(stores: &[Store]) -> Vec<Target> {
        let of = |of: &Store| {
            let name = of.name.clone();
            let senders: Vec<StoreSender> = of.senders.clone();
            senders.into_iter().map(move |sender| Target {
                name: format!("{name}/{}", sender.status().addr),
                sender,
                seen: AtomicU64::new(0),
                caught_up: AtomicU64::new(0),
                rates: Mutex::default(),
            })
        };
        stores.iter().flat_map(of).collect()
    }

    /// The source's name in replay: `windows:<store>/<host:port>`.
    pub(crate) fn source(&self) -> String {
        format!("windows:{}", self.name)
    }

    /// What it takes now.
    pub(crate) fn view(&self, now: Mono) -> View {
        let status = self.sender.status();
        let up = matches!(status.phase, Phase::Open | Phase::AwaitingReceipt);
        if up {
            self.seen.store(now.as_nanos(), Ordering::Relaxed);
        }
        let seen = self.seen.load(Ordering::Relaxed);
        let was_just_there = seen > 0 && now.since(Mono::from_nanos(seen)) < AWAY_AFTER;
        let here = status.accepts && (up || was_just_there);
        View { here, roomy: here && up && status.held_bytes < ROOM_BYTES, released: self.sender.progress().released }
    }

    /// Gives its sender a block of lines; how many it has been offered then. `None`: it does not take it.
    pub(crate) fn offer(&self, block: Block) -> Option<u64> {
        match self.sender.try_offer(block) {
            // Other shards may have offered since: then it counts as owed a little longer.
            Ok(()) => Some(self.sender.progress().offered),
            // The lines can be made again from the windows, which wait instead.
            Err(_) => None,
        }
    }

    /// So many lines of what it had missed went to it.
    pub(crate) fn caught_up(&self, lines: u64) {
        self.caught_up.fetch_add(lines, Ordering::Relaxed);
    }

    /// Lines a second of what it had missed, mean of about the last five seconds.
    pub(crate) fn rate(&self, now: Mono) -> u64 {
        let mut seen = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let done = self.lines_caught_up();
        if seen.back().is_none_or(|(at, _)| now.since(*at) >= Duration::from_secs(1)) {
            seen.push_back((now, done));
        }
        while seen.len() > 2 && seen.front().is_some_and(|(at, _)| now.since(*at) > RATE_OVER) {
            seen.pop_front();
        }
        let Some((at, before)) = seen.front() else { return 0 };
        let millis = u64::try_from(now.since(*at).as_millis()).unwrap_or(u64::MAX);
        (done.saturating_sub(*before) * 1000).checked_div(millis).unwrap_or(0)
    }

    /// Lines of what it had missed that went to it since the start of the process.
    pub(crate) fn lines_caught_up(&self) -> u64 {
        self.caught_up.load(Ordering::Relaxed)
    }
}
