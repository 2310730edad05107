//! What of the spill is told to endpoints outside: gaps that are new, and what operators did.

use std::sync::{Arc, OnceLock};

use admin_api::AuditEntry;
use engine::notify::Topic;
use engine::spill::{Gap, LaneView, Lost};
use engine::time::UnixSeconds;
use node::notices::{News, Notices};

#[derive(Debug)]
pub(super) struct Announcer {
    notices: OnceLock<Arc<Notices>>,
    /// What was noticed before is a former life's news.
    since: UnixSeconds,
}

impl Announcer {
    pub(super) fn new(since: UnixSeconds) -> Announcer {
        Announcer { notices: OnceLock::new(), since }
    }

    pub(super) fn set(&self, notices: &Arc<Notices>) {
        self.notices.get_or_init(|| Arc::clone(notices));
    }

    pub(super) fn operator(&self, entry: &AuditEntry) {
        if let Some(notices) = self.notices.get() {
            notices.changed("", std::slice::from_ref(entry));
        }
    }

    /// What an operator gave up is told as what he did.
    pub(super) fn gaps(&self, before: &[LaneView], now: &[LaneView]) {
        let Some(notices) = self.notices.get() else { return };
        for lane in now {
            let known = before.iter().find(|known| known.lane == lane.lane).map_or(&[][..], |known| &known.gaps);
            let is_new = |gap: &&Gap| gap.at >= self.since && gap.why != Lost::Discarded && !known.contains(gap);
            for gap in lane.gaps.iter().filter(is_new) {
                let range = format!("{} to {}", gap.first, gap.last);
                let text = format!(
                    "{} points in {} batches for {} are gone from the spill ({}): ordinals {range}",
                    gap.points,
                    gap.batches,
                    lane.destination,
                    gap.why.as_str()
                );
                let what = format!("spill/{}", lane.destination);
                let new = format!("{} points {}, ordinals {range}", gap.points, gap.why.as_str());
                notices.say(News { topic: Topic::Gaps, what: &what, old: "", new: &new, text: &text });
            }
        }
    }
}
