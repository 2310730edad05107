//! The latest rejected lines, as samples for a person: bounded in number and in length.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use admin_api::BadLine;
use engine::line::Reject;
use engine::time::UnixSeconds;

const SAMPLES_MAX: usize = 100;
const SAMPLE_BYTES: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct BadLines {
    latest: Mutex<VecDeque<BadLine>>,
}

impl BadLines {
    /// Keeps a sample. Reasons that are everyday business (see [`Reject::warns`]) are not sampled: they would push out
    /// what a person looks for.
    pub(crate) fn keep(&self, at: UnixSeconds, peer: &str, why: Reject, line: &[u8]) {
        if !why.warns() {
            return;
        }
        let text = String::from_utf8_lossy(&line[..line.len().min(SAMPLE_BYTES)]).into_owned();
        let sample =
            BadLine { at: u64::from(at.0), peer: peer.to_owned(), reason: why.as_str().to_owned(), line: text };
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.truncate(SAMPLES_MAX - 1);
        latest.push_front(sample);
    }

    /// Latest first.
    pub(crate) fn list(&self) -> Vec<BadLine> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
