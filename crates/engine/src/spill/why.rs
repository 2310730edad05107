//! Why a batch or a block went to disk.

/// The reason, in the record's header. Closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// Not acknowledged in time, and the tries are used up.
    Timeout,
    /// Memory was over its bound: the oldest goes first.
    Memory,
    /// No peer could take it for too long.
    NoPeer,
    /// The relay stops with it in hand.
    Shutdown,
    /// `send.journal`: everything is written when it is sealed.
    Journal,
    /// An operator brought it here from another spill.
    Import,
}

impl Why {
    /// All there are, in the order of their codes.
    pub const ALL: [Why; 6] = [Why::Timeout, Why::Memory, Why::NoPeer, Why::Shutdown, Why::Journal, Why::Import];

    /// The word in metrics, logs and listings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Why::Timeout => "timeout",
            Why::Memory => "memory",
            Why::NoPeer => "no_peer",
            Why::Shutdown => "shutdown",
            Why::Journal => "journal",
            Why::Import => "import",
        }
    }

    /// The byte in a record's header.
    pub const fn code(self) -> u8 {
        match self {
            Why::Timeout => 0,
            Why::Memory => 1,
            Why::NoPeer => 2,
            Why::Shutdown => 3,
            Why::Journal => 4,
            Why::Import => 5,
        }
    }

    /// The reason with that code.
    pub fn from_code(code: u8) -> Option<Why> {
        Why::ALL.get(usize::from(code)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_code_and_a_word_of_its_own() {
        for (code, why) in (0..).zip(Why::ALL) {
            assert_eq!((why.code(), Why::from_code(code)), (code, Some(why)), "{}", why.as_str());
        }
        assert_eq!(Why::from_code(6), None);
    }
}
