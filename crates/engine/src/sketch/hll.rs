//! How many different series were seen.
//!
//! Up to 256 the hashes themselves are kept and the answer is exact (but for equal 64-bit hashes). Beyond, HyperLogLog
//! with 4096 registers: standard error 1.04 / sqrt(4096) = 1.6 %. Which of the two is held depends only on the set, so
//! any order of adding and merging ends in the same bytes.
//!
//! Estimator: Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (2017), algorithm 6: it has no
//! bias in the middle range and needs no tables.
//!
//! Layout: `0x00, count varint, count * hash u64` ascending, or `0x01, 4096 registers of one byte`.

use super::codec::{DecodeError, Reader, put_varint};

const EXACT_MAX: usize = 256;
const INDEX_BITS: u32 = 12;
const REGISTERS: usize = 1 << INDEX_BITS;
/// Bits of a hash that do not choose the register.
const RUN_BITS: usize = 64 - INDEX_BITS as usize;

/// A set of series, by their hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hll {
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Ascending, no duplicates, at most `EXACT_MAX`.
    Exact(Vec<u64>),
    /// Of each register the longest run of zeros seen, plus one.
    Dense(Box<[u8; REGISTERS]>),
}

impl Default for Hll {
    fn default() -> Hll {
        Hll::new()
    }
}

impl Hll {
    pub const fn new() -> Hll {
        Hll { state: State::Exact(Vec::new()) }
    }

    /// Forgets everything; keeps the memory of a small set, returns that of a large one.
    pub fn clear(&mut self) {
        match &mut self.state {
            State::Exact(hashes) => hashes.clear(),
            State::Dense(_) => *self = Hll::new(),
        }
    }

    /// Bytes held on the heap.
    pub fn heap_bytes(&self) -> usize {
        match &self.state {
            State::Exact(hashes) => hashes.capacity() * size_of::<u64>(),
            State::Dense(_) => REGISTERS,
        }
    }

    /// Adds one series. `hash`: all 64 bits well mixed (xxh3).
    #[inline]
    pub fn add(&mut self, hash: u64) {
        match &mut self.state {
            State::Exact(hashes) => {
                if let Err(at) = hashes.binary_search(&hash) {
                    hashes.insert(at, hash);
                    if hashes.len() > EXACT_MAX {
                        self.become_dense();
                    }
                }
            }
            State::Dense(registers) => raise(registers, hash),
        }
    }

    /// Adds every series of `other`.
    pub fn merge(&mut self, other: &Hll) {
        match &other.state {
            State::Exact(hashes) => hashes.iter().for_each(|hash| self.add(*hash)),
            State::Dense(theirs) => {
                self.become_dense();
                if let State::Dense(ours) = &mut self.state {
                    for (our, their) in ours.iter_mut().zip(theirs.iter()) {
                        *our = (*our).max(*their);
                    }
                }
            }
        }
    }

    /// How many different series were added: exact up to 256, then within a few per cent.
    pub fn estimate(&self) -> u64 {
        match &self.state {
            State::Exact(hashes) => hashes.len() as u64,
            State::Dense(registers) => estimate(registers),
        }
    }

    /// Appends the layout of this module.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match &self.state {
            State::Exact(hashes) => {
                out.push(0);
                put_varint(out, hashes.len() as u64);
                for hash in hashes {
                    out.extend_from_slice(&hash.to_le_bytes());
                }
            }
            State::Dense(registers) => {
                out.push(1);
                out.extend_from_slice(registers.as_slice());
            }
        }
    }

    /// Reads what [`Hll::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are no such set. Never reserves more than the bytes given.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Hll, DecodeError> {
        match reader.u8()? {
            0 => {
                let count = reader.count(8)?;
                if count > EXACT_MAX {
                    return Err(DecodeError::Malformed("more hashes than an exact set holds"));
                }
                let mut hashes: Vec<u64> = Vec::with_capacity(count);
                for _ in 0..count {
                    let hash = reader.u64_fixed()?;
                    if hashes.last().is_some_and(|last| *last >= hash) {
                        return Err(DecodeError::Malformed("hashes of a set out of order"));
                    }
                    hashes.push(hash);
                }
                Ok(Hll { state: State::Exact(hashes) })
            }
            1 => {
                let mut registers = Box::new([0u8; REGISTERS]);
                registers.copy_from_slice(reader.take(REGISTERS)?);
                if registers.iter().any(|register| usize::from(*register) > RUN_BITS + 1) {
                    return Err(DecodeError::Malformed("a register out of range"));
                }
                Ok(Hll { state: State::Dense(registers) })
            }
            _ => Err(DecodeError::Malformed("an unknown kind of set")),
        }
    }

    fn become_dense(&mut self) {
        if let State::Exact(hashes) = &self.state {
            let mut registers = Box::new([0u8; REGISTERS]);
            hashes.iter().for_each(|hash| raise(&mut registers, *hash));
            self.state = State::Dense(registers);
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "12 bits of index, a run of at most 53")]
fn raise(registers: &mut [u8; REGISTERS], hash: u64) {
    let index = (hash >> RUN_BITS) as usize;
    // The set bit below the run stops the count when all bits are zero.
    let run = ((hash << INDEX_BITS) | (1 << (INDEX_BITS - 1))).leading_zeros() as u8 + 1;
    registers[index] = registers[index].max(run);
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rounded, positive estimate")]
fn estimate(registers: &[u8; REGISTERS]) -> u64 {
    let mut runs = [0u32; RUN_BITS + 2];
    for register in registers {
        runs[usize::from(*register)] += 1;
    }
    let m = REGISTERS as f64;
    let mut z = m * tau(1.0 - f64::from(runs[RUN_BITS + 1]) / m);
    for count in runs[1..=RUN_BITS].iter().rev() {
        z = 0.5 * (z + f64::from(*count));
    }
    z += m * sigma(f64::from(runs[0]) / m);
    (m * m / (2.0 * std::f64::consts::LN_2 * z)).round() as u64
}

/// `x + sum of x^(2^k) * 2^(k-1)`: what empty registers stand for.
fn sigma(mut x: f64) -> f64 {
    let (mut weight, mut sum) = (1.0, x);
    // 64 squarings bring every x below 1 to zero; a set without any raised register is never dense.
    for _ in 0..64 {
        x *= x;
        let before = sum;
        sum += x * weight;
        weight += weight;
        if sum == before {
            break;
        }
    }
    sum
}

/// What full registers stand for.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut weight, mut sum) = (1.0, 1.0 - x);
    for _ in 0..64 {
        x = x.sqrt();
        let before = sum;
        weight *= 0.5;
        sum -= (1.0 - x) * (1.0 - x) * weight;
        if sum == before {
            break;
        }
    }
    sum / 3.0
}
