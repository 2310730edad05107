//! What an operator sets of a replay, which of it is refused, and what a large backlog at the start does to it.

use std::collections::BTreeMap;

use crate::pace::Bounds;
use crate::pattern::{Pattern, Selector};
use crate::rate;
use crate::time::UnixSeconds;

/// Bytes of a glob.
const MATCHING_MAX: usize = 2_048;

/// What one source alone can be set to.
pub const ONE_SOURCE: &str = "a single source has a rate and a pause of its own; all else is set for all sources";

/// Why a source is refused.
pub fn unknown_source(source: &str, known: &[String]) -> String {
    format!("there is no source {source}; {}", known_sources(known))
}

/// The sources there are, as a sentence.
pub fn known_sources(known: &[String]) -> String {
    if known.is_empty() { "known sources: none yet".to_owned() } else { format!("known sources: {}", known.join(", ")) }
}

/// In force. Rates are points per second of all replayers together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    pub rate: u64,
    /// An operator's word; see also [`Control::is_paused`].
    pub paused: bool,
    pub adaptive: bool,
    /// Share of the receiving nodes that replay goes to, 1..=100; at least one node.
    pub canary_percent: u8,
    /// Only records with points of this time, both ends included.
    pub from: Option<UnixSeconds>,
    pub to: Option<UnixSeconds>,
    /// Only records with a series that this glob matches; empty: all.
    pub matching: String,
    /// By `relay` or `relay/destination`.
    pub sources: BTreeMap<String, SourceControl>,
    pub caution: Caution,
}

/// Whether an operator knows of the backlog.
///
/// ```text
///              found_at_start            rate, resume
///   Unheard ------------------> Floor, Halt ---------> Acknowledged        ran_empty: any -> Unheard
///      |            rate, resume                            ^
///      +----------------------------------------------------+
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caution {
    /// Nothing large was found, and nobody has spoken.
    #[default]
    Unheard,
    /// A large backlog was found at the start and no operator has spoken since: it goes at the floor rate.
    Floor,
    /// The same, and nothing goes.
    Halt,
    /// An operator has spoken since the backlog was last empty: a restart need not be cautious.
    Acknowledged,
}

impl Caution {
    /// As it was kept: cautious by itself, or acknowledged by an operator; an operator's word counts for more.
    pub const fn restored(cautious: bool, acknowledged: bool, start: Start) -> Caution {
        match (acknowledged, cautious, start) {
            (true, _, _) => Caution::Acknowledged,
            (false, true, Start::Floor) => Caution::Floor,
            (false, true, Start::Paused) => Caution::Halt,
            (false, true, Start::Rate) | (false, false, _) => Caution::Unheard,
        }
    }
}

/// What is set for one source alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceControl {
    /// A ceiling of its own, below that of all.
    pub rate: Option<u64>,
    pub paused: bool,
}

/// What an operator asks for; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// `rate` and `paused` are for this one.
    pub source: Option<String>,
    pub rate: Option<u64>,
    pub paused: Option<bool>,
    pub adaptive: Option<bool>,
    pub canary_percent: Option<u8>,
    /// Replaces both bounds; seconds since 1970.
    pub range: Option<(Option<u64>, Option<u64>)>,
    pub matching: Option<String>,
}

/// One thing that became another, for the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub what: String,
    pub old: String,
    pub new: String,
}

/// How a replay begins with a large backlog (`replay.start`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Floor,
    Paused,
    Rate,
}

/// The cluster file's part, and this replayer's share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Points per second of all replayers together.
    pub floor: u64,
    pub start: Start,
    /// A backlog of more points is large.
    pub large_points: u64,
    /// Replayers of the cluster; each takes its equal share of the rate.
    pub replayers: u64,
}

impl Control {
    /// The cluster file's word, before any operator's.
    pub fn new(rate: u64, adaptive: bool) -> Control {
        Control {
            rate,
            paused: false,
            adaptive,
            canary_percent: 100,
            from: None,
            to: None,
            matching: String::new(),
            sources: BTreeMap::new(),
            caution: Caution::Unheard,
        }
    }

    /// Carries a change out on a copy. `known`: every source there is, `relay` and `relay/destination`. A change that
    /// changes nothing gives an empty list.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it and what is in force.
    pub fn apply(&self, change: &Change, known: &[String]) -> Result<(Control, Vec<Changed>), String> {
        let mut next = self.clone();
        if let Some(rate) = change.rate {
            rate::check(rate).map_err(|wrong| wrong.in_force(self.describe_rate(change.source.as_deref())))?;
        }
        match &change.source {
            Some(source) => next.change_source(source, change, known)?,
            None => next.change_all(change)?,
        }
        // Who sets a rate or resumes has seen the backlog. Pausing, or a canary, is no word on the rate.
        if change.source.is_none() && (change.rate.is_some() || change.paused == Some(false)) {
            // A rate alone lets nothing go that stands still.
            next.paused |= next.caution == Caution::Halt && change.paused.is_none();
            next.caution = Caution::Acknowledged;
        }
        let changed = self.differences(&next);
        Ok((next, changed))
    }

    fn describe_rate(&self, source: Option<&str>) -> String {
        match source.and_then(|source| self.sources.get(source)?.rate) {
            Some(own) => rate::show(own),
            None => rate::show(self.rate),
        }
    }

    fn change_source(&mut self, source: &str, change: &Change, known: &[String]) -> Result<(), String> {
        let others = change.adaptive.is_some()
            || change.canary_percent.is_some()
            || change.range.is_some()
            || change.matching.is_some();
        if others {
            return Err(format!("{ONE_SOURCE}; {}", known_sources(known)));
        }
        if !known.iter().any(|name| name == source) {
            return Err(unknown_source(source, known));
        }
        let entry = self.sources.entry(source.to_owned()).or_default();
        entry.rate = change.rate.or(entry.rate);
        entry.paused = change.paused.unwrap_or(entry.paused);
        if *entry == SourceControl::default() {
            self.sources.remove(source);
        }
        Ok(())
    }

    fn change_all(&mut self, change: &Change) -> Result<(), String> {
        self.rate = change.rate.unwrap_or(self.rate);
        self.paused = change.paused.unwrap_or(self.paused);
        self.adaptive = change.adaptive.unwrap_or(self.adaptive);
        if let Some(percent) = change.canary_percent {
            if !(1..=100).contains(&percent) {
                let now = self.canary_percent;
                return Err(format!("a canary of {percent} %: it is a share from 1 to 100 %; {now} % is in force"));
            }
            self.canary_percent = percent;
        }
        if let Some((from, to)) = change.range {
            (self.from, self.to) = (second(from)?, second(to)?);
            if let (Some(from), Some(to)) = (self.from, self.to)
                && from > to
            {
                return Err(format!("the range ends ({}) before it begins ({})", to.0, from.0));
            }
        }
        if let Some(glob) = &change.matching {
            if glob.len() > MATCHING_MAX {
                return Err(format!("a glob of {} bytes; at most {MATCHING_MAX} are taken", glob.len()));
            }
            if !glob.is_empty() {
                Pattern::compile(&Selector::Glob(glob.clone())).map_err(|error| format!("the glob {glob}: {error}"))?;
            }
            self.matching.clone_from(glob);
        }
        Ok(())
    }

    fn differences(&self, next: &Control) -> Vec<Changed> {
        let mut changed = Vec::new();
        let mut note = |what: String, old: String, new: String| {
            if old != new {
                changed.push(Changed { what, old, new });
            }
        };
        note("rate".into(), self.rate.to_string(), next.rate.to_string());
        note("paused".into(), self.paused.to_string(), next.paused.to_string());
        note("adaptive".into(), self.adaptive.to_string(), next.adaptive.to_string());
        note("canary_percent".into(), self.canary_percent.to_string(), next.canary_percent.to_string());
        note("from".into(), shown(self.from), shown(next.from));
        note("to".into(), shown(self.to), shown(next.to));
        note("matching".into(), self.matching.clone(), next.matching.clone());
        note("cautious".into(), self.is_cautious().to_string(), next.is_cautious().to_string());
        let names: std::collections::BTreeSet<&String> = self.sources.keys().chain(next.sources.keys()).collect();
        for name in names {
            let old = self.sources.get(name).cloned().unwrap_or_default();
            let new = next.sources.get(name).cloned().unwrap_or_default();
            note(format!("{name}.rate"), rate_shown(old.rate), rate_shown(new.rate));
            note(format!("{name}.paused"), old.paused.to_string(), new.paused.to_string());
        }
        changed
    }

    /// Whether nothing goes, by an operator's word or by caution.
    pub fn is_paused(&self) -> bool {
        self.paused || self.caution == Caution::Halt
    }

    /// Whether a large backlog waits for an operator's word.
    pub fn is_cautious(&self) -> bool {
        matches!(self.caution, Caution::Floor | Caution::Halt)
    }

    /// What the pace of this replayer may be.
    pub fn bounds(&self, plan: &Plan) -> Bounds {
        let share = |rate: u64| (rate / plan.replayers.max(1)).max(1);
        let at_floor = self.caution == Caution::Floor;
        let ceiling = if at_floor { self.rate.min(plan.floor) } else { self.rate };
        Bounds { ceiling: share(ceiling), floor: share(plan.floor), paused: self.is_paused(), adaptive: self.adaptive }
    }

    /// Whether this source (`relay`, and its `destination`) is paused on its own.
    pub fn source_paused(&self, relay: &str, destination: &str) -> bool {
        self.of(relay, destination).any(|source| source.paused)
    }

    /// The own ceiling of a source (`relay` or `relay/destination`), for this replayer.
    pub fn source_rate(&self, source: &str, plan: &Plan) -> Option<u64> {
        let rate = self.sources.get(source)?.rate?;
        Some((rate / plan.replayers.max(1)).max(1))
    }

    fn of(&self, relay: &str, destination: &str) -> impl Iterator<Item = &SourceControl> {
        let both = format!("{relay}/{destination}");
        [self.sources.get(relay), self.sources.get(&both)].into_iter().flatten()
    }

    /// A source said its backlog for the first time in this life; `backlog` is that of all, in points. True if that
    /// made the replay cautious.
    pub fn found_at_start(&mut self, plan: &Plan, backlog: u64) -> bool {
        let cautious = match (self.caution, plan.start) {
            (Caution::Unheard, Start::Floor) => Caution::Floor,
            (Caution::Unheard, Start::Paused) => Caution::Halt,
            (Caution::Unheard, Start::Rate) | (Caution::Floor | Caution::Halt | Caution::Acknowledged, _) => {
                return false;
            }
        };
        let large = backlog > plan.large_points;
        if large {
            self.caution = cautious;
        }
        large
    }

    /// Nothing waits any more: the next large backlog is a new matter. What an operator paused stays so. True if that
    /// changed anything.
    pub fn ran_empty(&mut self) -> bool {
        std::mem::take(&mut self.caution) != Caution::Unheard
    }
}

fn second(at: Option<u64>) -> Result<Option<UnixSeconds>, String> {
    at.map(|at| u32::try_from(at).map(UnixSeconds).map_err(|_| format!("{at} is no time in seconds since 1970")))
        .transpose()
}

fn shown(at: Option<UnixSeconds>) -> String {
    at.map_or_else(|| "open".to_owned(), |at| at.0.to_string())
}

fn rate_shown(rate: Option<u64>) -> String {
    rate.map_or_else(|| "none".to_owned(), |rate| rate.to_string())
}
