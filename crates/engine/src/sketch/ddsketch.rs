//! Quantiles with a relative error of at most 1 %, for any values, in any order.
//!
//! DDSketch (Masson, Rim, Lee, VLDB 2019) with fixed bucket bounds. Published implementations limit the number of
//! buckets and collapse the lowest ones when it is reached; which ones depends on the order of arrival, so merges would
//! not commute. This one never collapses: one sketch holds at most 143,221 cells of 8 bytes, and as many as its values
//! need, 35 for each doubling between the smallest and the largest.
//!
//! Bucket bounds: for `x = 2^e * (1 + s)` the position is `35 * (e + P(s))`, where `P` is the cubic through 0 and 1
//! that follows the logarithm closest from above in slope: `(1 + s) * P'(s) >= 10/7` everywhere, so a bucket's upper
//! bound is at most `exp(0.7 / 35) = 1.0202` times its lower bound, and the harmonic middle is within
//! `tanh(0.01) < 1 %` of every value inside. Plain arithmetic, so the bucket of a value is the same on every machine,
//! which `ln` of a C library does not promise; and five times as fast.
//!
//! Layout: `cells varint`, then for each cell in ascending order of value
//! `key varint` (the first as it is, each later one minus its predecessor) and `count varint`.

use super::codec::{DecodeError, Reader, put_varint};

/// Buckets for each doubling of the value.
const PER_OCTAVE: u32 = 35;
const COUNT_BITS: u32 = 46;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
/// Key of the cell for zero. Keys of positive values stand above, those of negative values below, in order of value.
const ZERO_KEY: u32 = 1 << 17;
/// The highest bucket of a positive finite value, counted from the smallest normal number.
const BUCKET_MAX: u32 = 2045 * PER_OCTAVE + PER_OCTAVE;

/// A sketch of a multiset of finite numbers.
///
/// Values nearer to zero than the smallest normal `f64` (2.2e-308) count as zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DdSketch {
    /// `key << COUNT_BITS | count`, ascending: 8 bytes a bucket, and the order of keys is the order of values.
    cells: Vec<u64>,
}

impl DdSketch {
    pub const fn new() -> DdSketch {
        DdSketch { cells: Vec::new() }
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// How many values were added.
    pub fn count(&self) -> u64 {
        self.cells.iter().map(|cell| cell & COUNT_MAX).sum()
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.cells.clear();
    }

    /// Bytes held on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.cells.capacity() * size_of::<u64>()
    }

    /// Adds one finite value.
    #[inline]
    pub fn add(&mut self, value: f64) {
        self.add_to_cell(key_of(value), 1, 0);
    }

    /// Adds everything that `other` holds.
    pub fn merge(&mut self, other: &DdSketch) {
        let mut from = 0;
        for cell in &other.cells {
            from = self.add_to_cell(key_in(*cell), cell & COUNT_MAX, from);
        }
    }

    /// A value within 1 % of the one at rank `floor(permille / 1000 * (count - 1))`, counted from the smallest; none
    /// when the sketch is empty. `permille`: 0 to 1000.
    pub fn quantile(&self, permille: u16) -> Option<f64> {
        let last_rank = self.count().checked_sub(1)?;
        let rank = u128::from(permille.min(1000)) * u128::from(last_rank) / 1000;
        let mut seen = 0u128;
        for cell in &self.cells {
            seen += u128::from(cell & COUNT_MAX);
            if seen > rank {
                return Some(value_of(key_in(*cell)));
            }
        }
        None
    }

    /// Appends the layout of this module.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.cells.len() as u64);
        let mut previous = 0;
        for cell in &self.cells {
            let key = key_in(*cell);
            put_varint(out, u64::from(key - previous));
            put_varint(out, cell & COUNT_MAX);
            previous = key;
        }
    }

    /// Reads what [`DdSketch::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are no sketch. Never reserves more than four times the bytes given.
    pub fn decode(reader: &mut Reader<'_>) -> Result<DdSketch, DecodeError> {
        let length = reader.count(2)?;
        let mut cells = Vec::with_capacity(length);
        let mut key = 0u32;
        for index in 0..length {
            let step = reader.varint_u32()?;
            let count = reader.varint()?;
            if (index > 0 && step == 0) || count == 0 || count > COUNT_MAX {
                return Err(DecodeError::Malformed("a sketch cell out of order or without count"));
            }
            key = key.checked_add(step).ok_or(DecodeError::Malformed("a sketch cell out of range"))?;
            if key.abs_diff(ZERO_KEY) > BUCKET_MAX + 1 {
                return Err(DecodeError::Malformed("a sketch cell out of range"));
            }
            cells.push(u64::from(key) << COUNT_BITS | count);
        }
        Ok(DdSketch { cells })
    }

    /// Adds to the cell of `key`, which stands at `from` or later, and says where it stands.
    #[inline]
    fn add_to_cell(&mut self, key: u32, count: u64, from: usize) -> usize {
        let at = from + self.cells[from..].partition_point(|cell| key_in(*cell) < key);
        match self.cells.get_mut(at) {
            Some(cell) if key_in(*cell) == key => {
                let total = (*cell & COUNT_MAX).saturating_add(count).min(COUNT_MAX);
                *cell = u64::from(key) << COUNT_BITS | total;
            }
            Some(_) | None => self.cells.insert(at, u64::from(key) << COUNT_BITS | count.min(COUNT_MAX)),
        }
        at
    }
}

#[allow(clippy::cast_possible_truncation, reason = "18 bits are left after the shift")]
fn key_in(cell: u64) -> u32 {
    (cell >> COUNT_BITS) as u32
}

#[inline]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "11 bits of exponent; a position of 0 to 35"
)]
fn key_of(value: f64) -> u32 {
    let bits = value.to_bits();
    let exponent = (bits >> 52) as u32 & 0x7ff;
    if exponent == 0 {
        return ZERO_KEY;
    }
    let fraction = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000) - 1.0;
    let bucket = (exponent - 1) * PER_OCTAVE + (cubic(fraction) * f64::from(PER_OCTAVE)) as u32;
    let bucket = bucket.min(BUCKET_MAX);
    if value > 0.0 { ZERO_KEY + 1 + bucket } else { ZERO_KEY - 1 - bucket }
}

/// The harmonic middle of a cell.
fn value_of(key: u32) -> f64 {
    if key == ZERO_KEY {
        return 0.0;
    }
    let bucket = key.abs_diff(ZERO_KEY) - 1;
    let within = bucket % PER_OCTAVE;
    let low = 1.0 + inverse_cubic(f64::from(within) / f64::from(PER_OCTAVE));
    let high = 1.0 + inverse_cubic(f64::from(within + 1) / f64::from(PER_OCTAVE));
    let exponent = u64::from(bucket / PER_OCTAVE + 1).min(0x7fe);
    let size = f64::from_bits(exponent << 52) * (2.0 * low * high / (low + high));
    if key > ZERO_KEY { size } else { -size }
}

/// From 0 at 0 to 1 at 1, rising.
#[inline]
fn cubic(s: f64) -> f64 {
    ((6.0 / 35.0 * s - 3.0 / 5.0) * s + 10.0 / 7.0) * s
}

/// The `s` in 0..=1 with `cubic(s) == position`. Newton from below: the cubic is concave, so each step stays below and
/// six are enough for the last bit.
fn inverse_cubic(position: f64) -> f64 {
    let mut s = position * 0.7;
    for _ in 0..6 {
        s -= (cubic(s) - position) / ((18.0 / 35.0 * s - 6.0 / 5.0) * s + 10.0 / 7.0);
    }
    s.clamp(0.0, 1.0)
}
