//! The latest watermark of every relay, as far as this node has heard.
//!
//! A relay that starts again has a new epoch, and retires the old ones a minute later. If an older epoch of one sender goes
//! on speaking, there are two nodes with copies of one data directory: neither may retire what the other still sends.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Mono;
use crate::wire::Watermark;

/// A relay that has been silent for so long no longer holds windows back.
const SILENT_AFTER: Duration = Duration::from_secs(600);
/// An epoch that has been silent for so long, while a later one speaks, is a former life. Relays speak every second.
const OUTLIVED_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct Watermarks {
    /// By sender and epoch.
    known: BTreeMap<(u64, u32), (Watermark, Mono)>,
}

impl Watermarks {
    /// A relay's word.
    pub fn note(&mut self, now: Mono, watermark: Watermark) {
        self.known.insert((watermark.sender, watermark.epoch), (watermark, now));
    }

    /// The latest word of every relay that is not silent, senders and their epochs ascending. Epochs that still speak are
    /// not among the retired ones.
    pub fn latest(&mut self, now: Mono) -> Vec<Watermark> {
        let known = &mut self.known;
        let newest: BTreeMap<u64, u32> = known.keys().copied().collect();
        known.retain(|(sender, epoch), (_, at)| {
            let silence = now.since(*at);
            silence < SILENT_AFTER && (silence < OUTLIVED_AFTER || newest.get(sender) == Some(epoch))
        });
        let mut latest: Vec<Watermark> = known.values().map(|(watermark, _)| *watermark).collect();
        let mut floor: Option<(u64, u32)> = None;
        for watermark in &mut latest {
            match floor.filter(|(sender, _)| *sender == watermark.sender) {
                Some((_, oldest)) => watermark.retired = watermark.retired.min(oldest.saturating_sub(1)),
                None => floor = Some((watermark.sender, watermark.epoch)),
            }
        }
        latest
    }

    /// The highest epoch of a sender that speaks, or did lately; 0: none.
    pub fn epoch_of(&self, sender: u64) -> u32 {
        self.known.range((sender, 0)..=(sender, u32::MAX)).next_back().map_or(0, |((_, epoch), _)| *epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::UnixSeconds;

    fn word(sender: u64, epoch: u32, at: u32, retired: u32) -> Watermark {
        Watermark { sender, epoch, at: UnixSeconds(at), oldest_ms: 0, retired }
    }

    #[test]
    fn a_silent_relay_is_forgotten_and_the_last_word_counts() {
        let mut marks = Watermarks::default();
        marks.note(Mono::ZERO, word(1, 1, 10, 0));
        marks.note(Mono::from_millis(500_000), word(2, 1, 30, 0));
        marks.note(Mono::from_millis(500_001), word(2, 1, 20, 0));
        let mut seen = |millis| marks.latest(Mono::from_millis(millis)).iter().map(|w| w.at.0).collect::<Vec<_>>();
        assert_eq!(seen(500_002), [10, 20]);
        assert_eq!(seen(600_001), [20]);
    }

    #[test]
    fn a_former_life_is_forgotten_soon() {
        let mut marks = Watermarks::default();
        marks.note(Mono::ZERO, word(1, 4, 10, 3));
        marks.note(Mono::from_millis(9_000), word(1, 5, 20, 4));
        let mut seen =
            |millis| marks.latest(Mono::from_millis(millis)).iter().map(|w| (w.epoch, w.retired)).collect::<Vec<_>>();
        assert_eq!(seen(9_999), [(4, 3), (5, 3)]);
        assert_eq!(seen(10_001), [(5, 4)]);
        assert_eq!((marks.epoch_of(1), marks.epoch_of(2)), (5, 0));
    }

    /// Two nodes on copies of one disk: the later one must not have the earlier one's batches taken for old ones.
    #[test]
    fn an_epoch_that_still_speaks_is_retired_by_nobody() {
        let mut marks = Watermarks::default();
        for second in 0..100u64 {
            let now = Mono::from_millis(second * 1_000);
            marks.note(now, word(1, 4, 10, 3));
            marks.note(now, word(1, 9, 10, 8));
            marks.note(now, word(2, 9, 10, 8));
            let retired: Vec<u32> = marks.latest(now).iter().map(|w| w.retired).collect();
            assert_eq!(retired, [3, 3, 8], "at {second} s");
        }
    }
}
