//! Dead letters: partials whose windows were sealed when they came. They are kept for a person, and never emitted.
//!
//! A parcel holds what came between two checkpoints and is written with the second, in the same atomic batch as the
//! floor that sealed the windows: so a restart neither forgets nor repeats one. Each entry: `window u32, rule u32, name
//! length varint and bytes, state (see partial)`. The bytes of all parcels are bounded; what does not fit is only counted.

use crate::partial::Partial;
use crate::sketch::codec::put_bytes;
use crate::window::BlockId;

/// Bytes of one partition's dead letters.
pub const BYTES_MAX: u64 = 16 << 20;

/// See the module's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dead {
    /// Number of the next parcel.
    pub(super) next: u64,
    /// Bytes of the parcels that were written.
    pub(super) bytes: u64,
    parcel: Vec<u8>,
    /// Points that were counted only, since the start of the process.
    pub(super) unkept: u64,
}

impl Dead {
    pub(super) fn new(next: u64, bytes: u64) -> Dead {
        Dead { next, bytes, ..Dead::default() }
    }

    pub(super) fn add(&mut self, id: BlockId, name: &[u8], partial: &Partial) {
        if self.bytes + self.parcel.len() as u64 >= BYTES_MAX {
            self.unkept += partial.points();
            return;
        }
        self.parcel.extend_from_slice(&id.window.0.to_le_bytes());
        self.parcel.extend_from_slice(&id.rule.to_le_bytes());
        put_bytes(&mut self.parcel, name);
        partial.encode(&mut self.parcel);
    }

    /// The parcel to write, and its number.
    pub(super) fn take_parcel(&mut self) -> Option<(u64, Vec<u8>)> {
        if self.parcel.is_empty() {
            return None;
        }
        let parcel = std::mem::take(&mut self.parcel);
        self.bytes += parcel.len() as u64;
        self.next += 1;
        Some((self.next - 1, parcel))
    }
}
