//! Who of a pool gets traffic. One [`Pool`] on every node that sends to a pool; it decides for that node alone.
//!
//! ```text
//!  links, verdicts, canaries, samples --+
//!                                       +--> Pool --> for each node a Standing: In(why) or Out(why not); events
//!  orders (mode, drain, forget), time --+
//! ```
//!
//! * *Hard* evidence is never overridden: no link, the node says that it leaves, it was forgotten. Everything else is
//!   soft. Overload is no evidence at all.
//! * [`Mode::Strict`]: the verdict is ready, the proof is as old as `proof`, the node is not ejected. [`Mode::Lenient`]:
//!   the link is up. [`Mode::Auto`]: strict, unless strict would leave less than the floor; then lenient until strict
//!   could hold for `recover` without a break.
//! * INV-8: in every mode the floor is filled by the least bad of those without hard evidence against them, the ones
//!   that an operator drained last.
//! * [`Kind::Fixed`]: nodes that own what is theirs (final nodes). There is nobody to go to instead, so only orders and
//!   the link decide.
//! * [`Pool::preview`] gives the orders to a clone and reads its outcome: preview and outcome are one function.
//! * What is known of a link dies with it, and the whole pool with the process: who starts has no proof of anybody, and
//!   so begins lenient where the mode is auto.

mod decide;
mod node;
mod rounds;
mod words;

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Mono;
use crate::verdict::Verdict;
use node::Node;
use rounds::Rounds;

/// Index into the names that the pool was made with.
pub type NodeIndex = usize;

/// Events kept for the shell; the oldest go first.
const EVENTS_MAX: usize = 256;

/// How much proof is wanted before a node is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    Strict,
    Lenient,
    Auto,
}

/// Whether work for one node of the pool can go to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any node takes anything.
    Free,
    /// Each node owns what is its own.
    Fixed,
}

/// What proves a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Canaries that are acknowledged within the time-out.
    Canary { timeout: Duration },
    /// That the link stands: the observer has nothing of its own to send.
    Link,
}

/// Fixed for the life of a pool.
#[derive(Clone, Debug)]
pub struct Settings {
    pub kind: Kind,
    pub probe: Probe,
    /// What is in force as long as nothing was ordered.
    pub mode: Mode,
    /// How long a node must have been clean.
    pub proof: Duration,
    /// How long strict must be able to hold before an automatic leniency ends.
    pub recover: Duration,
    /// Share of the pool that is always eligible, 1..=100.
    pub floor_percent: u8,
    /// Share of the pool that may be ejected as outliers.
    pub max_ejected_percent: u8,
}

/// What an operator has ordered for one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hand {
    #[default]
    Off,
    /// Out of the pool until it is undrained.
    Drained,
    /// It will never return.
    Forgotten,
}

/// All orders in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orders {
    pub mode: Mode,
    /// One for each node.
    pub hands: Vec<Hand>,
}

/// How the layer stands; what an automatic stance remembers exists only in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stance {
    Strict,
    Lenient,
    AutoStrict,
    AutoLenient {
        since: Mono,
        /// Since when strict could hold.
        could: Option<Mono>,
    },
}

impl Stance {
    /// Whether proof decides now.
    pub fn is_strict(self) -> bool {
        match self {
            Stance::Strict | Stance::AutoStrict => true,
            Stance::Lenient | Stance::AutoLenient { .. } => false,
        }
    }

    /// The mode that leads to it.
    pub fn mode(self) -> Mode {
        match self {
            Stance::Strict => Mode::Strict,
            Stance::Lenient => Mode::Lenient,
            Stance::AutoStrict | Stance::AutoLenient { .. } => Mode::Auto,
        }
    }
}

/// Whether one node is eligible, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    In(Why),
    Out(WhyNot),
}

impl Standing {
    /// Whether it may get work.
    pub fn is_in(&self) -> bool {
        matches!(self, Standing::In(_))
    }
}

/// Why a node is eligible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Strict.
    Proven,
    /// Lenient.
    LinkUp,
    /// Nobody else has what it owns.
    Owner,
    /// Else the pool would be below its floor.
    Floor(WhyNot),
}

/// What speaks against a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyNot {
    LinkDown,
    /// It says so itself.
    Leaving,
    Forgotten,
    Drained,
    /// It has not said that it is ready yet.
    Starting,
    /// A worker of it has failed.
    Degraded {
        worker: String,
    },
    /// Clean for so long, of so long.
    Unproven {
        clean: Duration,
        proof: Duration,
    },
    /// Far slower than the others.
    Ejected {
        left: Duration,
    },
}

/// What the pool has decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub stance: Stance,
    /// One for each node.
    pub nodes: Vec<Standing>,
    /// Nodes that are always eligible, if so many have nothing hard against them.
    pub floor: usize,
    /// Nodes of the pool: those that are not forgotten.
    pub size: usize,
    /// How many strict alone would leave, before the floor is filled.
    pub strict: usize,
}

impl Outcome {
    /// For each node whether it may get work.
    pub fn eligible(&self) -> Vec<bool> {
        self.nodes.iter().map(Standing::is_in).collect()
    }
}

/// What happened; [`Event::say`] has the sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Strict would have left `strict` of `size`, fewer than `floor`.
    WentLenient {
        strict: usize,
        floor: usize,
        size: usize,
    },
    /// Strict could hold again for long enough.
    WentStrict,
    Ordered(Mode),
    Joined {
        node: NodeIndex,
        why: Why,
    },
    Left {
        node: NodeIndex,
        why: WhyNot,
    },
}

/// What is known of one node, to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub up: bool,
    pub verdict: Option<Verdict>,
    /// For how long it has been clean.
    pub clean: Option<Duration>,
    /// Ack latency, smoothed.
    pub latency: Option<Duration>,
    pub queue_delay: Option<Duration>,
    /// Canaries that were acknowledged, and that were held against it, since the pool was made.
    pub canaries_acked: u64,
    pub canaries_failed: u64,
    /// How often it was ejected.
    pub ejections: u64,
}

/// The machine. See the module's head.
#[derive(Clone, Debug)]
pub struct Pool {
    settings: Settings,
    names: Vec<String>,
    nodes: Vec<Node>,
    hands: Vec<Hand>,
    stance: Stance,
    rounds: Rounds,
    outcome: Outcome,
    events: VecDeque<Event>,
}

impl Pool {
    /// A pool of nodes without links.
    pub fn new(settings: Settings, names: Vec<String>, now: Mono) -> Pool {
        let stance = match settings.mode {
            Mode::Strict => Stance::Strict,
            Mode::Lenient => Stance::Lenient,
            Mode::Auto => Stance::AutoLenient { since: now, could: None },
        };
        let nodes = names.iter().map(|_| Node::new(now)).collect();
        let outcome = Outcome { stance, nodes: Vec::new(), floor: 0, size: 0, strict: 0 };
        let mut pool = Pool {
            hands: vec![Hand::Off; names.len()],
            settings,
            names,
            nodes,
            stance,
            rounds: Rounds::default(),
            outcome,
            events: VecDeque::new(),
        };
        pool.settle(now);
        pool.events.clear();
        pool
    }

    /// The names of the nodes.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The node's link is up.
    pub fn link_up(&mut self, now: Mono, node: NodeIndex) {
        let has_proof = match self.settings.probe {
            Probe::Link => true,
            Probe::Canary { .. } => false,
        };
        if let Some(node) = self.nodes.get_mut(node) {
            node.link_up(now, has_proof);
        }
        self.settle(now);
    }

    /// It is down. May be said again.
    pub fn link_down(&mut self, now: Mono, node: NodeIndex) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.link_down(now);
        }
        self.rounds.void(node);
        self.settle(now);
    }

    /// What the node says of itself. Ignored while there is no link.
    pub fn verdict(&mut self, now: Mono, node: NodeIndex, verdict: Verdict) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.verdict(verdict);
        }
        self.settle(now);
    }

    /// A canary of this round went out. Rounds are numbered upwards.
    pub fn canary_sent(&mut self, now: Mono, node: NodeIndex, round: u64) {
        if self.nodes.get(node).is_some_and(Node::is_up) {
            self.rounds.sent(now, node, round, self.nodes.len());
        }
    }

    /// It was acknowledged.
    pub fn canary_acked(&mut self, now: Mono, node: NodeIndex, round: u64) {
        if let Some(took) = self.rounds.acked(now, node, round)
            && let Some(node) = self.nodes.get_mut(node)
        {
            node.canary_acked(now, took);
        }
    }

    /// It was refused for a reason that is none against the node.
    pub fn canary_void(&mut self, node: NodeIndex, round: u64) {
        self.rounds.void_one(node, round);
    }

    /// A batch took so long from sending to its acknowledgement.
    pub fn latency(&mut self, node: NodeIndex, took: Duration) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.latency(took);
        }
    }

    /// The node says how long its queue is.
    pub fn queue_delay(&mut self, node: NodeIndex, delay: Duration) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.queue_delay(delay);
        }
    }

    /// All orders in force. The same orders again change nothing; but time has passed: to be called several times a second.
    pub fn set_orders(&mut self, now: Mono, orders: &Orders) {
        if orders.mode != self.stance.mode() {
            // Auto begins strict, and is lenient at once if strict does not hold.
            self.stance = match orders.mode {
                Mode::Strict => Stance::Strict,
                Mode::Lenient => Stance::Lenient,
                Mode::Auto => Stance::AutoStrict,
            };
            self.event(Event::Ordered(orders.mode));
        }
        for (mine, ordered) in self.hands.iter_mut().zip(&orders.hands) {
            *mine = *ordered;
        }
        self.settle(now);
    }

    /// The orders in force.
    pub fn orders(&self) -> Orders {
        Orders { mode: self.stance.mode(), hands: self.hands.clone() }
    }

    /// What would be decided now, were these the orders.
    pub fn preview(&self, now: Mono, orders: &Orders) -> Outcome {
        let mut copy = self.clone();
        copy.set_orders(now, orders);
        copy.outcome
    }

    /// What was decided last.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// What is known of each node.
    pub fn evidence(&self, now: Mono) -> Vec<Evidence> {
        self.nodes.iter().map(|node| node.evidence(now)).collect()
    }

    /// What happened since this was asked last.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }

    fn event(&mut self, event: Event) {
        self.events.push_back(event);
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
    }

    /// Takes in what time has brought, and decides.
    fn settle(&mut self, now: Mono) {
        if let Probe::Canary { timeout } = self.settings.probe {
            for node in self.rounds.failed(now, timeout) {
                if let Some(node) = self.nodes.get_mut(node) {
                    node.canary_failed();
                }
            }
        }
        self.step_outliers(now);
        let (size, floor) = (self.size(), self.floor());
        let strict = self.strict_count(now);
        // Of nodes that own what is theirs no stance changes anything.
        if self.settings.kind == Kind::Free {
            self.step_stance(now, strict, floor, size);
        }
        let nodes = self.decide(now, floor);
        let outcome = Outcome { stance: self.stance, nodes, floor, size, strict };
        let before = std::mem::replace(&mut self.outcome, outcome).nodes;
        for node in 0..self.nodes.len() {
            let was_in = before.get(node).is_some_and(Standing::is_in);
            match self.outcome.nodes.get(node) {
                Some(Standing::In(why)) if !was_in => self.event(Event::Joined { node, why: why.clone() }),
                Some(Standing::Out(why)) if was_in => self.event(Event::Left { node, why: why.clone() }),
                Some(_) | None => {}
            }
        }
    }

    fn step_stance(&mut self, now: Mono, strict: usize, floor: usize, size: usize) {
        let holds = strict >= floor;
        match &mut self.stance {
            Stance::Strict | Stance::Lenient => {}
            Stance::AutoStrict if holds => {}
            Stance::AutoStrict => {
                self.stance = Stance::AutoLenient { since: now, could: None };
                self.event(Event::WentLenient { strict, floor, size });
            }
            Stance::AutoLenient { could, .. } if !holds => *could = None,
            Stance::AutoLenient { could, .. } => {
                let since = *could.get_or_insert(now);
                if now.since(since) >= self.settings.recover {
                    self.stance = Stance::AutoStrict;
                    self.event(Event::WentStrict);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
