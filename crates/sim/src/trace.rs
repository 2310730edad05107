//! What happened, as one number: two runs of a seed are the same to the byte if their traces are.

use engine::time::Mono;

/// FNV-1a over 64-bit words: fast, and no cryptography is needed against ourselves.
#[derive(Clone, Debug)]
pub struct Trace {
    hash: u64,
    /// Things that happened.
    pub events: u64,
    /// Lines for people, if they are wanted.
    pub log: Option<Vec<String>>,
}

const PRIME: u64 = 0x0000_0100_0000_01b3;

impl Trace {
    /// Nothing has happened.
    pub fn new(verbose: bool) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, events: 0, log: verbose.then(Vec::new) }
    }

    fn word(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(PRIME).rotate_left(23);
    }

    /// Something happened: when, what (a code), and to whom.
    pub fn note(&mut self, now: Mono, what: u64, whom: u64) {
        self.events += 1;
        self.word(now.as_nanos());
        self.word(what << 48 ^ whom);
    }

    /// Bytes that went over a wire.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.word(chunk.try_into().map_or(0, u64::from_le_bytes));
        }
        let rest = chunks.remainder();
        let last = rest.iter().fold(rest.len() as u64, |word, byte| word << 8 | u64::from(*byte));
        self.word(last);
    }

    /// A line for people.
    pub fn say(&mut self, now: Mono, what: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("{:>9.3} s  {}", now.since(Mono::ZERO).as_secs_f64(), what()));
        }
    }

    /// The number.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}
