//! The words of a value.

use std::fmt;

use crate::health::Mode;

pub(super) const DRAINED: &str = "drained";
pub(super) const ACTIVE: &str = "active";
const FORGOTTEN: &str = "forgotten";
const LOST: &str = "lost";
const DEFAULT: &str = "default";

/// `forgotten`, `forgotten 0123456789abcdef`, `forgotten 0123456789abcdef lost 500`: who will never return, the sender
/// of a relay where it was known, and the points that were given up with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    pub sender: Option<u64>,
    pub lost_points: u64,
}

impl Forgotten {
    /// Reads the words; `None` if they are others. What a later version may say behind them is passed over.
    pub fn parse(text: &str) -> Option<Forgotten> {
        let mut words = text.split(' ');
        (words.next() == Some(FORGOTTEN)).then_some(())?;
        let mut forgotten = Forgotten::default();
        while let Some(word) = words.next() {
            if word == LOST {
                forgotten.lost_points = words.next().and_then(|points| points.parse().ok()).unwrap_or(0);
            } else if word.len() == 16 {
                forgotten.sender = u64::from_str_radix(word, 16).ok();
            }
        }
        Some(forgotten)
    }
}

impl fmt::Display for Forgotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FORGOTTEN)?;
        if let Some(sender) = self.sender {
            write!(f, " {sender:016x}")?;
        }
        if self.lost_points > 0 {
            write!(f, " {LOST} {}", self.lost_points)?;
        }
        Ok(())
    }
}

/// What holds when nothing is ordered for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// What the cluster file says.
    Default,
    Ordered(Mode),
}

impl Lasting {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Lasting::Default => DEFAULT,
            Lasting::Ordered(mode) => mode.as_str(),
        }
    }

    /// The mode, if one was ordered.
    pub const fn mode(self) -> Option<Mode> {
        match self {
            Lasting::Default => None,
            Lasting::Ordered(mode) => Some(mode),
        }
    }

    fn parse(word: &str) -> Option<Lasting> {
        if word == DEFAULT { Some(Lasting::Default) } else { Mode::parse(word).map(Lasting::Ordered) }
    }
}

/// `lenient`, or `lenient until 1764000000 then auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeValue {
    pub mode: Mode,
    /// Seconds since 1970, and what holds then.
    pub until: Option<(u64, Lasting)>,
}

/// A value at a moment: what has ended is gone from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InForce {
    mode: Lasting,
    pub(super) until: Option<(u64, Lasting)>,
}

impl ModeValue {
    /// Reads the words; `None` if they are others.
    pub fn parse(text: &str) -> Option<ModeValue> {
        let words: Vec<&str> = text.split(' ').collect();
        match words.as_slice() {
            [mode] => Some(ModeValue { mode: Mode::parse(mode)?, until: None }),
            [mode, "until", end, "then", then] => {
                Some(ModeValue { mode: Mode::parse(mode)?, until: Some((end.parse().ok()?, Lasting::parse(then)?)) })
            }
            _ => None,
        }
    }

    pub(super) fn at(self, now: u64) -> InForce {
        match self.until {
            Some((end, then)) if now >= end => InForce { mode: then, until: None },
            until => InForce { mode: Lasting::Ordered(self.mode), until },
        }
    }
}

impl InForce {
    pub(super) fn mode_or_default(self) -> Lasting {
        self.mode
    }

    pub(super) fn lasting(self) -> Lasting {
        self.until.map_or(self.mode, |(_, then)| then)
    }

    pub(super) fn says_the_same(self, ordered: ModeValue) -> bool {
        let end = |until: Option<(u64, Lasting)>| until.map(|(end, _)| end);
        self.mode == Lasting::Ordered(ordered.mode) && end(self.until) == end(ordered.until)
    }
}

impl fmt::Display for ModeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mode.as_str())?;
        match self.until {
            Some((end, then)) => write!(f, " until {end} then {}", then.as_str()),
            None => Ok(()),
        }
    }
}
