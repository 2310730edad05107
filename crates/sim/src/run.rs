//! One run: calm, faults, healing, quiet; then everything is compared.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use engine::time::Mono;

use crate::check;
use crate::faults::{self, Fault, Planned};
use crate::oracle::Lines;
use crate::rare;
use crate::rng::Rng;
use crate::setup::Spares;
use crate::world::{Event, Process, World};

/// Faults begin when links are up.
const CALM_MS: u64 = 3_000;
/// A window of the last points is over, and was emitted, so long after them, also if the clock was ahead.
const SETTLE: Duration = Duration::from_secs(90);
/// After healing everything is quiet within this, or it is a violation.
const QUIET_WITHIN: Duration = Duration::from_secs(400);

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Instead of the seed's own schedule.
    pub schedule: Option<Vec<Planned>>,
    pub verbose: bool,
    /// No faults at all.
    pub calm: bool,
    /// Without the kinds of faults that came later and are drawn apart ([`crate::rare`]): an old seed as it was.
    pub old: bool,
}

impl Plan {
    /// A seed as it is.
    pub fn seed(seed: u64) -> Plan {
        Plan { seed, schedule: None, verbose: false, calm: false, old: false }
    }
}

/// How a run went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub seed: u64,
    pub hash: u64,
    pub events: u64,
    pub virtual_seconds: u64,
    pub batches: u64,
    pub points: u64,
    pub schedule: Vec<Planned>,
    pub violations: Vec<String>,
    pub seen: std::collections::BTreeMap<&'static str, u64>,
    pub log: Vec<String>,
}

/// Runs one seed. A panic anywhere is a violation.
pub fn run(plan: &Plan) -> Report {
    let spares = if plan.old || plan.calm { Spares::default() } else { rare::spares(plan.seed) };
    let raw = if plan.old { None } else { rare::raw(plan.seed) };
    let mut world = World::new(plan.seed, plan.verbose, spares, raw);
    let schedule = schedule(plan, &world);
    world.truth.allowed = faults::allowed(&schedule);
    let ended = catch_unwind(AssertUnwindSafe(|| drive(&mut world, &schedule)));
    if let Err(panic) = ended {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
        world.truth.violated("panic", || said.unwrap_or_default());
    }
    Report {
        seed: plan.seed,
        hash: world.trace.hash(),
        events: world.trace.events,
        virtual_seconds: world.now.since(Mono::ZERO).as_secs(),
        batches: world.truth.batches.len() as u64,
        points: world.truth.batches.values().map(|sealed| sealed.points.len() as u64).sum(),
        schedule,
        violations: std::mem::take(&mut world.truth.violations),
        seen: std::mem::take(&mut world.truth.seen),
        log: world.trace.log.take().unwrap_or_default(),
    }
}

/// How long faults go on, in milliseconds since the beginning.
fn faults_until(seed: u64) -> u64 {
    Rng::new(seed ^ 0xfa17).pick(&[20_000, 40_000, 90_000])
}

fn schedule(plan: &Plan, world: &World) -> Vec<Planned> {
    if plan.calm {
        return Vec::new();
    }
    plan.schedule.clone().unwrap_or_else(|| {
        let mut rng = Rng::new(plan.seed ^ 0x5c4e_d01e);
        let until = faults_until(plan.seed);
        let mut planned = faults::schedule(&mut rng, &world.setup, CALM_MS, until);
        if !plan.old {
            planned.extend(rare::schedule(plan.seed, &world.setup, CALM_MS, until));
            planned.sort_by_key(|planned| planned.at_ms);
        }
        planned
    })
}

fn drive(world: &mut World, schedule: &[Planned]) {
    let until = faults_until(0).max(schedule.last().map_or(20_000, |last| last.at_ms + 1));
    let heal_at = Mono::from_millis(until);
    world.input_until = heal_at + Duration::from_secs(3);
    for planned in schedule {
        world.plan(Mono::from_millis(planned.at_ms), Event::Fault(planned.fault));
    }
    world.run_until(heal_at);
    world.heal();
    let mut quiet_since = None;
    let mut limit = heal_at + QUIET_WITHIN;
    let mut may_come_back = true;
    let settled = world.input_until + SETTLE;
    while world.truth.violations.is_empty() {
        world.run_until(world.now + Duration::from_secs(1));
        match noise(world) {
            None => {
                let since = *quiet_since.get_or_insert(world.now);
                if world.now >= settled && world.now.since(since) >= Duration::from_secs(2) {
                    if !std::mem::take(&mut may_come_back) || !old_disk_comes_back(world, heal_at) {
                        break;
                    }
                    quiet_since = None;
                    limit = world.now + QUIET_WITHIN;
                }
            }
            Some(noise) => {
                quiet_since = None;
                if world.now >= limit {
                    world.truth.violated("liveness", || format!("not quiet long after healing: {noise}"));
                }
            }
        }
    }
    finish(world);
}

/// Long after everything, when old epochs are retired, a relay gets a data directory back that has batches of them. False:
/// none was remembered.
fn old_disk_comes_back(world: &mut World, heal_at: Mono) -> bool {
    let Some(node) = world.hosts.iter().position(|host| host.snapshot.is_some()) else { return false };
    world.run_until(world.now.max(heal_at + Duration::from_secs(70)));
    world.truth.allowed.insert("duplicate_sender");
    world.strike(Fault::RollBack { node, down_ms: 500 });
    true
}

/// Who is not done yet.
fn noise(world: &mut World) -> Option<String> {
    let names = &world.setup.names;
    for (node, host) in world.hosts.iter_mut().enumerate() {
        let name = &names[node];
        let is_loud = match &mut host.process {
            None if host.gone => None,
            None => Some("is down".to_owned()),
            Some(Process::Relay(relay)) if !relay.raw.is_quiet() => Some("holds raw lines".to_owned()),
            Some(Process::Relay(relay)) => match (relay.machine.held().1, relay.spill.pending()) {
                (0, Some(0)) => None,
                // Given up with it: what was made for rules that it alone has read nobody can evaluate.
                (0, Some(_)) if world.truth.forgotten.contains(&relay.who.sender) => None,
                held => Some(format!("holds {held:?}")),
            },
            Some(Process::Partial(partial)) => {
                // Canaries have no points, and there are always some.
                let held = partial.machine.books().in_flight;
                (held > 0).then(|| format!("holds {held} points"))
            }
            Some(Process::Final(node)) => (!node.is_quiet()).then(|| "emits".to_owned()),
            Some(Process::Replayer(_) | Process::Store(_)) => None,
        };
        if let Some(what) = is_loud {
            return Some(format!("{name} {what}"));
        }
    }
    None
}

fn finish(world: &mut World) {
    if !world.truth.violations.is_empty() {
        return;
    }
    check::nothing_missing(&mut world.truth);
    for node in 0..world.hosts.len() {
        world.call(node, |process, cx| {
            if let Process::Final(node) = process {
                node.compare_books(cx);
            }
        });
    }
    let stores: Vec<(String, Lines, Lines)> = world
        .hosts
        .iter()
        .zip(&world.setup.names)
        .filter_map(|(host, name)| match &host.process {
            Some(Process::Store(store)) => Some((name.clone(), store.values.clone(), store.raw.clone())),
            _ => None,
        })
        .collect();
    for (index, (name, values, raw)) in stores.into_iter().enumerate() {
        check::converged(&world.setup, &mut world.truth, &name, &values);
        if let Some(what) = world.truth.lines.missing(index, &raw) {
            world.truth.violated("INV-4", || format!("{name}, raw lines: {what}"));
        }
    }
}
