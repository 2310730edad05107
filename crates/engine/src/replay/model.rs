//! Random faults against a model of relays, receivers and a final layer: nothing is called delivered that was not
//! durable, and everything borrowed is settled or given back.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::tests::{PLAN, SENDER, batch, said};
use super::*;
use crate::wire::{Durable, NackReason, Range};

const LANES: u16 = 3;
const RECORDS: u64 = 12;

#[derive(Clone, Debug)]
enum Action {
    /// The relay answers what it was asked for.
    Ask {
        grants: u64,
    },
    Turns {
        paid: bool,
    },
    /// A receiver reads what was written to it.
    Read {
        receiver: usize,
        batches: usize,
    },
    /// A receiver answers for what it read.
    Durable {
        receiver: usize,
        batches: usize,
    },
    Nack {
        receiver: usize,
        reason: NackReason,
    },
    Offer {
        takes: bool,
    },
    Release {
        blocks: u64,
    },
    ReceiverLost {
        receiver: usize,
    },
    RelayLost,
    Pass {
        millis: u64,
    },
    Tell,
    Recover,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let reason = prop_oneof![
        4 => Just(NackReason::Overloaded { retry_after_ms: 200 }),
        1 => Just(NackReason::TooOld),
        1 => Just(NackReason::BadChecksum),
        1 => Just(NackReason::TooManyHoles),
        1 => Just(NackReason::UnknownVersion),
        1 => Just(NackReason::Poison),
    ];
    let action = prop_oneof![
        10 => (0..6u64).prop_map(|grants| Action::Ask { grants }),
        10 => prop::bool::weighted(0.9).prop_map(|paid| Action::Turns { paid }),
        10 => (0..2usize, 0..6usize).prop_map(|(receiver, batches)| Action::Read { receiver, batches }),
        10 => (0..2usize, 0..6usize).prop_map(|(receiver, batches)| Action::Durable { receiver, batches }),
        3 => (0..2usize, reason).prop_map(|(receiver, reason)| Action::Nack { receiver, reason }),
        5 => prop::bool::weighted(0.8).prop_map(|takes| Action::Offer { takes }),
        5 => (0..4u64).prop_map(|blocks| Action::Release { blocks }),
        2 => (0..2usize).prop_map(|receiver| Action::ReceiverLost { receiver }),
        1 => Just(Action::RelayLost),
        6 => (1..8_000u64).prop_map(|millis| Action::Pass { millis }),
        6 => Just(Action::Tell),
        1 => Just(Action::Recover),
    ];
    prop::collection::vec(action, 1..150)
}

struct World {
    replay: Replay,
    now: Mono,
    /// Not settled at the relay, and until when they are lent.
    spill: BTreeMap<Ticket, Mono>,
    refused: BTreeSet<Ticket>,
    read: [Vec<u32>; 2],
    /// What the final layer has.
    durable: BTreeSet<u32>,
    /// Nacked for good, so the relay may hear so.
    condemned: BTreeSet<u32>,
    offered: Vec<Ticket>,
    released: u64,
}

fn seq(ticket: Ticket) -> u32 {
    u32::from(ticket.lane) * 100 + u32::try_from(ticket.ordinal).unwrap()
}

fn is_store(ticket: Ticket) -> bool {
    ticket.lane == LANES - 1
}

impl World {
    fn new() -> World {
        let settings = Settings {
            sources: vec!["relay-1".into()],
            receivers: vec!["partial-1".into(), "partial-2".into()],
            stores: vec!["carbon/127.0.0.1:2103".into()],
        };
        let all = (0..LANES).flat_map(|lane| (0..RECORDS).map(move |ordinal| Ticket { lane, ordinal }));
        let mut world = World {
            replay: Replay::new(settings, PLAN, Control::new(50_000, true)),
            now: Mono::from_millis(1_000),
            spill: all.map(|ticket| (ticket, Mono::ZERO)).collect(),
            refused: BTreeSet::new(),
            read: [Vec::new(), Vec::new()],
            durable: BTreeSet::new(),
            condemned: BTreeSet::new(),
            offered: Vec::new(),
            released: 0,
        };
        world.connect();
        world
    }

    fn connect(&mut self) {
        self.replay.set_rate(1_000_000);
        self.replay.source_up(0, 1);
        self.replay.store_state(0, true);
        for receiver in 0..2 {
            self.replay.receiver_up(self.now, receiver, 600);
        }
        self.say_backlog();
    }

    fn say_backlog(&mut self) {
        let waiting = |lane: u16| self.spill.keys().filter(|ticket| ticket.lane == lane).count() as u64 * 10;
        let names = ["aggregate", "aggregate:final-1", "carbon/127.0.0.1:2103"];
        let lanes = (0..LANES).map(|lane| said(lane, names[usize::from(lane)], waiting(lane))).collect();
        self.replay.backlog(0, Backlog { lanes });
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Ask { grants } => self.ask(grants),
            Action::Turns { paid } => {
                while let Some(turn) = self.replay.next_turn(self.now) {
                    if paid {
                        self.replay.go(self.now, turn.key);
                    }
                }
                if !paid {
                    self.replay.forget_turns();
                }
            }
            Action::Read { receiver, batches } => {
                for _ in 0..batches {
                    let Some(bytes) = self.replay.next_batch(receiver) else { break };
                    self.read[receiver].push(Batch::decode(bytes).unwrap().id().seq);
                }
            }
            Action::Durable { receiver, batches } => self.answer(receiver, batches),
            Action::Nack { receiver, reason } => {
                let Some(seq) = self.read[receiver].pop() else { return };
                if !reason.is_retryable() && reason != NackReason::UnknownVersion {
                    self.condemned.insert(seq);
                }
                if reason == NackReason::BadChecksum {
                    self.condemned.insert(seq);
                }
                self.replay.nack(self.now, receiver, super::tests::id(seq), reason);
            }
            Action::Offer { takes } => self.offer(takes),
            Action::Release { blocks } => {
                self.released = (self.released + blocks).min(self.offered.len() as u64);
                self.replay.store_released(0, self.released);
            }
            Action::ReceiverLost { receiver } => {
                self.replay.receiver_down(receiver);
                self.read[receiver].clear();
                self.replay.receiver_up(self.now, receiver, 600);
            }
            Action::RelayLost => {
                self.replay.source_down(0);
                self.spill.values_mut().for_each(|until| *until = Mono::ZERO);
                self.replay.source_up(0, 1);
            }
            Action::Pass { millis } => {
                self.now = self.now + Duration::from_millis(millis);
                self.replay.tick(self.now);
                self.say_backlog();
            }
            Action::Tell => self.tell(),
            Action::Recover => {
                self.replay.recover();
                self.read = [Vec::new(), Vec::new()];
                self.connect();
            }
        }
        self.audit();
    }

    fn ask(&mut self, grants: u64) {
        while let Some(request) = self.replay.next_request(self.now, 0) {
            let free = |(ticket, until): &(&Ticket, &Mono)| ticket.lane == request.lane && **until <= self.now;
            let lent: Vec<Ticket> =
                self.spill.iter().filter(free).map(|(ticket, _)| *ticket).take(grants.try_into().unwrap()).collect();
            for ticket in &lent {
                self.spill.insert(*ticket, self.now + Duration::from_secs(30));
                let bytes = if is_store(*ticket) { Bytes::from_static(b"a 1 1\n") } else { batch(seq(*ticket), 10) };
                self.replay.leased(self.now, 0, Leased { number: request.number, ticket: *ticket, bytes });
            }
            let granted = u32::try_from(lent.len()).unwrap();
            self.replay.lease_end(self.now, 0, LeaseEnd { number: request.number, granted });
        }
    }

    fn answer(&mut self, receiver: usize, batches: usize) {
        let mut ranges = Vec::new();
        for _ in 0..batches {
            let Some(seq) = self.read[receiver].pop() else { break };
            self.durable.insert(seq);
            ranges.push(Range { sender: SENDER, epoch: 1, first: seq, last: seq });
        }
        self.replay.durable(self.now, receiver, &Durable { ranges, queue_delay_ms: 0, window_bytes: 600 });
    }

    fn offer(&mut self, takes: bool) {
        self.replay.store_state(0, true);
        while let Some((key, ..)) = self.replay.next_block(0) {
            if !takes {
                self.replay.block_refused(0, key);
                break;
            }
            self.offered.push(key.1);
            self.replay.block_offered(0, key, self.offered.len() as u64);
        }
    }

    fn tell(&mut self) {
        for done in self.replay.take_done(0) {
            for ticket in done.tickets {
                match done.outcome {
                    Outcome::Delivered => {
                        let released = usize::try_from(self.released).unwrap();
                        let safe = if is_store(ticket) {
                            self.offered[..released].contains(&ticket)
                        } else {
                            self.durable.contains(&seq(ticket))
                        };
                        assert!(safe, "{ticket:?} is called delivered and is not");
                        self.spill.remove(&ticket);
                    }
                    Outcome::Released => {
                        if let Some(until) = self.spill.get_mut(&ticket) {
                            *until = Mono::ZERO;
                        }
                    }
                    Outcome::TooOld | Outcome::Poison | Outcome::BadChecksum | Outcome::DuplicateSender => {
                        assert!(self.condemned.contains(&seq(ticket)), "{ticket:?} was not refused for good");
                        self.spill.remove(&ticket);
                        self.refused.insert(ticket);
                    }
                }
            }
        }
    }

    fn audit(&self) {
        let (by, all) = self.replay.books();
        assert!(all.balance() && by.values().all(Books::balance), "{all:?}");
        let bytes: u64 = self.replay.records.values().map(|record| record.bytes.len() as u64).sum();
        assert_eq!(self.replay.here(), (bytes, self.replay.records.len()));
        let ready: u64 = self.replay.lanes.values().map(|lane| lane.ready_points).sum();
        assert_eq!(self.replay.ready_points, ready);
        for receiver in &self.replay.receivers {
            // A batch larger than what is left goes alone.
            assert!(receiver.out_bytes <= 600, "{receiver:?}");
        }
    }

    /// From now on everything works.
    fn heal(&mut self) {
        for _ in 0..400 {
            if self.spill.is_empty() {
                return;
            }
            for action in [
                Action::Ask { grants: 20 },
                Action::Turns { paid: true },
                Action::Read { receiver: 0, batches: 99 },
                Action::Read { receiver: 1, batches: 99 },
                Action::Durable { receiver: 0, batches: 99 },
                Action::Durable { receiver: 1, batches: 99 },
                Action::Offer { takes: true },
                Action::Release { blocks: 99 },
                Action::Tell,
                Action::Pass { millis: 500 },
            ] {
                self.act(&action);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn through_any_faults_all_is_delivered_or_refused_and_nothing_is_called_so_that_is_not(actions in actions()) {
        let mut world = World::new();
        for action in &actions {
            world.act(action);
        }
        world.heal();
        prop_assert!(world.spill.is_empty(), "never settled: {:?}", world.spill);
        world.act(&Action::Pass { millis: 60_000 });
        prop_assert_eq!(world.replay.here(), (0, 0));
        prop_assert_eq!(world.replay.books().1.in_flight, 0);
    }
}
