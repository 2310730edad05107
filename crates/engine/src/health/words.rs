//! The same in words: for logs, labels and an operator at 3 a.m.

use std::time::Duration;

use super::{Event, Mode, Stance, Standing, Why, WhyNot};

impl Mode {
    /// All there are.
    pub const ALL: [Mode; 3] = [Mode::Strict, Mode::Lenient, Mode::Auto];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Strict => "strict",
            Mode::Lenient => "lenient",
            Mode::Auto => "auto",
        }
    }

    /// The mode of that word.
    pub fn parse(word: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.as_str() == word)
    }
}

impl Stance {
    /// The word for what is in effect.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stance::Strict | Stance::AutoStrict => "strict",
            Stance::Lenient | Stance::AutoLenient { .. } => "lenient",
        }
    }
}

impl Standing {
    /// A closed set of words, for labels.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Standing::In(why) => why.as_str(),
            Standing::Out(why) => why.as_str(),
        }
    }

    /// A sentence for a person.
    pub fn explain(&self) -> String {
        match self {
            Standing::In(Why::Proven) => "proven by its canaries".into(),
            Standing::In(Why::LinkUp) => "its link is up".into(),
            Standing::In(Why::Owner) => "nobody else has the partitions it owns".into(),
            Standing::In(Why::Floor(why)) => format!("fills the floor, although {}", why.explain()),
            Standing::Out(why) => why.explain(),
        }
    }
}

impl Why {
    const fn as_str(&self) -> &'static str {
        match self {
            Why::Proven => "proven",
            Why::LinkUp => "link_up",
            Why::Owner => "owner",
            Why::Floor(_) => "floor",
        }
    }
}

impl WhyNot {
    const fn as_str(&self) -> &'static str {
        match self {
            WhyNot::LinkDown => "link_down",
            WhyNot::Leaving => "leaving",
            WhyNot::Forgotten => "forgotten",
            WhyNot::Drained => "drained",
            WhyNot::Starting => "starting",
            WhyNot::Degraded { .. } => "degraded",
            WhyNot::Unproven { .. } => "unproven",
            WhyNot::Ejected { .. } => "ejected",
        }
    }

    fn explain(&self) -> String {
        match self {
            WhyNot::LinkDown => "there is no link to it".into(),
            WhyNot::Leaving => "it says that it is leaving".into(),
            WhyNot::Forgotten => "an operator said that it will never return".into(),
            WhyNot::Drained => "an operator drained it".into(),
            WhyNot::Starting => "it has not said that it is ready".into(),
            WhyNot::Degraded { worker } => format!("its worker {worker} has failed"),
            WhyNot::Unproven { clean, proof } => {
                format!("clean for {} of {}", seconds(*clean), seconds(*proof))
            }
            WhyNot::Ejected { left } => format!("far slower than the others; tried again in {}", seconds(*left)),
        }
    }
}

impl Event {
    /// A sentence. `name`: of a node.
    pub fn say<'n>(&self, name: impl Fn(usize) -> &'n str) -> String {
        match self {
            Event::WentLenient { strict, floor, size } => {
                format!("the layer went lenient: strict would leave {strict} of {size} nodes, and the floor is {floor}")
            }
            Event::WentStrict => "the layer is strict again: it could hold for long enough".into(),
            Event::Ordered(mode) => format!("mode {} was ordered", mode.as_str()),
            Event::Joined { node, why } => {
                format!("{} gets traffic: {}", name(*node), Standing::In(why.clone()).explain())
            }
            Event::Left { node, why } => format!("{} gets no traffic: {}", name(*node), why.explain()),
        }
    }

    /// What people outside are told of: what the pool did by itself. How it was before, and how it is.
    pub fn is_news(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Event::WentLenient { .. } => Some(("strict", "lenient")),
            Event::WentStrict => Some(("lenient", "strict")),
            Event::Left { why: why @ WhyNot::Ejected { .. }, .. } => Some(("eligible", why.as_str())),
            Event::Ordered(_) | Event::Joined { .. } | Event::Left { .. } => None,
        }
    }

    /// Whether a person should look at it.
    pub fn is_warning(&self) -> bool {
        match self {
            Event::WentLenient { .. } => true,
            Event::WentStrict | Event::Ordered(_) | Event::Joined { .. } | Event::Left { .. } => false,
        }
    }
}

/// Whole seconds, minutes where it is more than two.
fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds >= 120 { format!("{} min", seconds / 60) } else { format!("{seconds} s") }
}
