//! What goes wrong, and when: one thing at a time for each pair of hosts and each host, drawn by the seed.
//!
//! turmoil's own words would mislead (FAULTS B4): a crashed host says FIN and then nothing. So there are two ways to die. A
//! *killed* process's kernel lives: connections end by FIN or RST, and new ones are refused until it is back. A host whose *power
//! is cut* falls silent; when it is back it answers what reaches it of old connections by RST.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::rc::Rc;
use std::time::Duration;

use runtime::simulated::Rng;
use turmoil::Sim;

use crate::run::Trace;

/// Two hosts.
pub type Pair = (&'static str, &'static str);

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing arrives, and everything later.
    Hold,
    /// Nothing arrives, and connections are broken for good: what was under way is lost.
    Cut,
    /// The same in one direction.
    CutOneWay,
    /// Messages are slower.
    Slow,
    /// The process is killed.
    Kill,
    /// The host's power is cut.
    PowerCut,
    /// A scenario's own: see [`Weather::is_on`].
    Switch(&'static str),
}

/// A fault that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Hold(Pair),
    Cut(Pair),
    CutOneWay { from: &'static str, to: &'static str },
    Slow(Pair),
    Kill(&'static str),
    PowerCut(&'static str),
    Switch(&'static str),
}

/// It began at `since` and is over at `until`.
#[derive(Clone, Debug)]
pub struct Outage {
    pub fault: Fault,
    pub since: Duration,
    pub until: Duration,
}

/// When a killed process may begin again: its host's future waits for it.
pub type Down = Rc<RefCell<BTreeMap<&'static str, Duration>>>;

/// See the module.
#[derive(Debug)]
pub struct Weather {
    rng: Rng,
    trace: Trace,
    /// Between which messages are hindered.
    pub pairs: Vec<Pair>,
    /// Which may die.
    pub mortal: Vec<&'static str>,
    pub kinds: Vec<Kind>,
    /// How long a fault lasts, in milliseconds.
    pub lasts: (u64, u64),
    /// How long until the next one, in milliseconds.
    pub every: (u64, u64),
    /// The latency of messages when nothing is wrong.
    pub latency: Duration,
    next: Option<Duration>,
    now: Vec<Outage>,
    down: Down,
}

impl Weather {
    /// Nothing goes wrong.
    pub(crate) fn calm(rng: Rng, trace: Trace) -> Weather {
        Weather {
            rng,
            trace,
            pairs: Vec::new(),
            mortal: Vec::new(),
            kinds: Vec::new(),
            lasts: (50, 9_000),
            every: (50, 4_000),
            latency: Duration::from_millis(1),
            next: None,
            now: Vec::new(),
            down: Down::default(),
        }
    }

    /// The seed's numbers for whatever else is drawn outside the hosts.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// Begins: each of `kinds` is there in two of three runs.
    pub fn begin(&mut self, kinds: &[Kind]) {
        self.kinds = kinds.iter().copied().filter(|_| self.rng.percent(66)).collect();
        self.next = Some(Duration::ZERO);
    }

    /// What is wrong now.
    pub fn outages(&self) -> &[Outage] {
        &self.now
    }

    /// Since when the switch is on.
    pub fn is_on(&self, switch: &'static str) -> bool {
        self.now.iter().any(|outage| outage.fault == Fault::Switch(switch))
    }

    /// For the futures of hosts that are killed.
    pub fn down(&self) -> Down {
        Rc::clone(&self.down)
    }

    /// Everything is put right, and nothing goes wrong any more.
    pub fn heal(&mut self, sim: &mut Sim<'_>) {
        self.next = None;
        for outage in std::mem::take(&mut self.now) {
            self.end(sim, &outage.fault);
        }
        self.down.borrow_mut().clear();
        self.trace.say_at(sim.elapsed(), "healed");
    }

    pub(crate) fn step(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        let over: Vec<Outage> = self.now.extract_if(.., |outage| outage.until <= now).collect();
        for outage in over {
            self.end(sim, &outage.fault);
        }
        if self.next.is_some_and(|next| next <= now) {
            let pause = self.rng.millis(self.every.0, self.every.1);
            self.next = Some(now + pause);
            self.worse(sim, now);
        }
    }

    /// One more thing goes wrong, unless it is hindered already where it would.
    fn worse(&mut self, sim: &mut Sim<'_>, now: Duration) {
        if self.kinds.is_empty() {
            return;
        }
        let kind = self.rng.pick(&self.kinds);
        let until = now + self.rng.millis(self.lasts.0, self.lasts.1);
        let is_forward = self.rng.percent(50);
        let slow = self.rng.millis(1, 200);
        let fault = match kind {
            Kind::Hold | Kind::Cut | Kind::CutOneWay | Kind::Slow => {
                let pair = self.rng.pick(&self.pairs);
                match kind {
                    Kind::Hold => Fault::Hold(pair),
                    Kind::Cut => Fault::Cut(pair),
                    Kind::CutOneWay if is_forward => Fault::CutOneWay { from: pair.0, to: pair.1 },
                    Kind::CutOneWay => Fault::CutOneWay { from: pair.1, to: pair.0 },
                    Kind::Slow | Kind::Kill | Kind::PowerCut | Kind::Switch(_) => Fault::Slow(pair),
                }
            }
            Kind::Kill => Fault::Kill(self.rng.pick(&self.mortal)),
            Kind::PowerCut => Fault::PowerCut(self.rng.pick(&self.mortal)),
            Kind::Switch(name) => Fault::Switch(name),
        };
        if self.now.iter().any(|outage| is_same_place(&outage.fault, &fault)) {
            return;
        }
        let mut what = String::new();
        write!(what, "{fault:?} for {:?}", until - now).unwrap_or_default();
        self.trace.say_at(now, &what);
        match &fault {
            Fault::Hold((a, b)) => sim.hold(*a, *b),
            Fault::Cut((a, b)) => sim.partition(*a, *b),
            Fault::CutOneWay { from, to } => sim.partition_oneway(*from, *to),
            Fault::Slow((a, b)) => sim.set_link_latency(*a, *b, slow),
            Fault::Kill(host) => {
                self.down.borrow_mut().insert(host, until);
                sim.bounce(*host);
            }
            Fault::PowerCut(host) => {
                self.with_peers(host, |host, peer| sim.partition(host, peer));
                sim.crash(*host);
            }
            Fault::Switch(_) => {}
        }
        self.now.push(Outage { fault, since: now, until });
    }

    fn end(&mut self, sim: &mut Sim<'_>, fault: &Fault) {
        self.trace.say_at(sim.elapsed(), &format!("over: {fault:?}"));
        match fault {
            Fault::Hold((a, b)) => sim.release(*a, *b),
            Fault::Cut((a, b)) => sim.repair(*a, *b),
            Fault::CutOneWay { from, to } => sim.repair_oneway(*from, *to),
            Fault::Slow((a, b)) => sim.set_link_latency(*a, *b, self.latency),
            Fault::PowerCut(host) => {
                self.with_peers(host, |host, peer| sim.repair(host, peer));
                sim.bounce(*host);
            }
            Fault::Kill(_) | Fault::Switch(_) => {}
        }
    }

    fn with_peers(&self, host: &'static str, act: impl Fn(&'static str, &'static str)) {
        for (a, b) in &self.pairs {
            if *a == host {
                act(host, b);
            } else if *b == host {
                act(host, a);
            }
        }
    }
}

/// Both would hinder the same messages, which turmoil cannot keep apart.
fn is_same_place(one: &Fault, other: &Fault) -> bool {
    let (one, other) = (places(one), places(other));
    one.iter().any(|place| other.contains(place))
}

fn places(fault: &Fault) -> Vec<&'static str> {
    match fault {
        Fault::Hold((a, b)) | Fault::Cut((a, b)) | Fault::Slow((a, b)) => vec![a, b],
        Fault::CutOneWay { from, to } => vec![from, to],
        Fault::Kill(host) | Fault::PowerCut(host) => vec![host],
        Fault::Switch(name) => vec![name],
    }
}
