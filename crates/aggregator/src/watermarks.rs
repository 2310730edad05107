//! The latest watermark of every relay, as far as this node has heard.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use engine::time::Mono;
use engine::wire::Watermark;

use crate::partial_lock as lock;

/// A relay that has been silent for so long no longer holds windows back.
const SILENT_AFTER: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
pub(crate) struct Watermarks {
    known: Mutex<BTreeMap<u64, (Watermark, Mono)>>,
}

impl Watermarks {
    /// A relay's word.
    pub(crate) fn note(&self, now: Mono, watermark: Watermark) {
        lock(&self.known).insert(watermark.sender, (watermark, now));
    }

    /// The latest word of every relay that is not silent.
    pub(crate) fn latest(&self, now: Mono) -> Vec<Watermark> {
        let mut known = lock(&self.known);
        known.retain(|_, (_, at)| now.since(*at) < SILENT_AFTER);
        known.values().map(|(watermark, _)| *watermark).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::time::UnixSeconds;

    #[test]
    fn a_silent_relay_is_forgotten_and_the_last_word_counts() {
        let marks = Watermarks::default();
        let word = |sender, at| Watermark { sender, epoch: 1, at: UnixSeconds(at), oldest_ms: 0, retired: 0 };
        marks.note(Mono::ZERO, word(1, 10));
        marks.note(Mono::from_millis(500_000), word(2, 30));
        marks.note(Mono::from_millis(500_001), word(2, 20));
        let seen = |millis| marks.latest(Mono::from_millis(millis)).iter().map(|w| w.at.0).collect::<Vec<_>>();
        assert_eq!(seen(500_002), [10, 20]);
        assert_eq!(seen(600_001), [20]);
    }
}
