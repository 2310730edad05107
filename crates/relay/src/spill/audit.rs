//! What operators did to the spill, kept in the spill itself: `'a' at u32, n u32 -> JSON` (numbers big-endian).

use std::collections::VecDeque;

use admin_api::AuditEntry;
use bytes::Bytes;
use engine::time::UnixSeconds;
use store::WriteBatch;

use super::handle::{AUDIT_MAX, Handle};

/// The first byte of the keys; `engine::spill` passes over it.
pub(super) const KEY: u8 = b'a';

/// Takes up what a former life kept; says how many entries there are.
pub(super) fn load(handle: &Handle, entries: &[(Bytes, Bytes)]) -> u32 {
    let skip = entries.len().saturating_sub(AUDIT_MAX);
    let kept = entries.iter().skip(skip);
    // What cannot be read was written by nobody; it is passed over, and removed in its turn.
    let entries: VecDeque<AuditEntry> = kept.filter_map(|(_, value)| serde_json::from_slice(value).ok()).collect();
    let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    handle.set_audit(entries);
    count
}

/// Puts an entry into what is written next.
pub(super) fn put(batch: &mut WriteBatch, at: UnixSeconds, number: u32, entry: &AuditEntry) {
    let mut key = vec![KEY];
    key.extend_from_slice(&at.0.to_be_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    if let Ok(value) = serde_json::to_vec(entry) {
        batch.put(&key, &value);
    }
}
