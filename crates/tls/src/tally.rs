//! How handshakes ended, by port, side and outcome.

use std::sync::atomic::{AtomicU64, Ordering};

use engine::recv::HandshakeFault;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Admin,
    Links,
    Graphite,
}

impl Port {
    const ALL: [Port; 3] = [Port::Admin, Port::Links, Port::Graphite];

    /// As the key in `[tls]`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Port::Admin => "admin",
            Port::Links => "links",
            Port::Graphite => "graphite",
        }
    }
}

/// Who began a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Accepted,
    Dialled,
}

impl Side {
    const ALL: [Side; 2] = [Side::Accepted, Side::Dialled];

    /// The word for labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Side::Accepted => "accepted",
            Side::Dialled => "dialled",
        }
    }
}

/// The word of a handshake that came to its end.
const DONE: &str = "done";
const OUTCOMES: usize = HandshakeFault::ALL.len() + 1;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: [[[AtomicU64; OUTCOMES]; Side::ALL.len()]; Port::ALL.len()],
}

impl Tally {
    /// `None`: it is done.
    pub(crate) fn count(&self, port: Port, side: Side, fault: Option<HandshakeFault>) {
        let outcome = fault.and_then(|fault| HandshakeFault::ALL.iter().position(|each| *each == fault));
        let outcome = outcome.map_or(0, |index| index + 1);
        self.counts[port as usize][side as usize][outcome].fetch_add(1, Ordering::Relaxed);
    }

    /// Every outcome that there was, with how often.
    pub(crate) fn read(&self) -> Vec<(Port, Side, &'static str, u64)> {
        let words = || std::iter::once(DONE).chain(HandshakeFault::ALL.iter().map(|fault| fault.as_str()));
        let mut read = Vec::new();
        for port in Port::ALL {
            for side in Side::ALL {
                let counts = self.counts[port as usize][side as usize].iter();
                for (word, count) in words().zip(counts.map(|count| count.load(Ordering::Relaxed))) {
                    if count > 0 {
                        read.push((port, side, word, count));
                    }
                }
            }
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_counted_under_its_own_word() {
        let tally = Tally::default();
        tally.count(Port::Links, Side::Dialled, None);
        for fault in HandshakeFault::ALL {
            tally.count(Port::Graphite, Side::Accepted, Some(fault));
        }
        tally.count(Port::Graphite, Side::Accepted, Some(HandshakeFault::Io));
        let read = tally.read();
        assert_eq!(read.len(), OUTCOMES);
        assert_eq!(read.first(), Some(&(Port::Links, Side::Dialled, "done", 1)));
        assert_eq!(read.last(), Some(&(Port::Graphite, Side::Accepted, "tls_io", 2)));
    }
}
