//! What is handed to a spill.

use super::filter::timestamps;
use super::record::{Content, Origin};
use super::why::Why;
use crate::batch::Batch;
use crate::time::UnixSeconds;

/// What is to be spilled.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub destination: &'a str,
    pub content: Content,
    pub why: Why,
    pub points: u32,
    pub min_ts: UnixSeconds,
    pub max_ts: UnixSeconds,
    /// The batch, or canonical lines.
    pub bytes: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Who may have it besides the spill.
    pub fn origin(&self) -> Origin<'a> {
        Origin { why: self.why, content: self.content, destination: self.destination }
    }

    /// A batch.
    pub fn batch(destination: &'a str, batch: &'a Batch, why: Why) -> Entry<'a> {
        let header = batch.header();
        Entry {
            destination,
            content: Content::Batch(header.id),
            why,
            points: header.points,
            min_ts: header.min_ts,
            max_ts: header.max_ts,
            bytes: batch.bytes(),
        }
    }

    /// A block of `points` lines for a store. `epoch` and `number`: the process that holds it, and its number there.
    pub fn block(destination: &'a str, lines: &'a [u8], points: u32, epoch: u32, number: u64, why: Why) -> Entry<'a> {
        let (min_ts, max_ts) = timestamps(lines).unwrap_or_default();
        let content = Content::Block { epoch, number };
        Entry { destination, content, why, points, min_ts, max_ts, bytes: lines }
    }
}
