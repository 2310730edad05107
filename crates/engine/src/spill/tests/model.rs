//! Random operations, a crash at any write, and a model that is a table of records: afterwards the books say of every
//! lane exactly what the table says.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Action {
    Append {
        lane: usize,
        points: u32,
    },
    Write,
    RefusedWrite,
    Sync,
    Settle {
        pick: usize,
    },
    Bury {
        pick: usize,
    },
    Discard {
        from: u32,
        to: u32,
    },
    Cursor {
        pick: usize,
    },
    Damage {
        pick: usize,
    },
    /// The process dies; of what was not synced this share (in 16ths) reached the disk.
    Crash {
        kept: usize,
    },
    StoreGone,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (0..3usize, 1..4u32).prop_map(|(lane, points)| Action::Append { lane, points }),
        5 => Just(Action::Write),
        1 => Just(Action::RefusedWrite),
        3 => Just(Action::Sync),
        6 => any::<usize>().prop_map(|pick| Action::Settle { pick }),
        1 => any::<usize>().prop_map(|pick| Action::Bury { pick }),
        1 => (0..40u32, 0..40u32).prop_map(|(from, to)| Action::Discard { from, to }),
        1 => any::<usize>().prop_map(|pick| Action::Cursor { pick }),
        2 => any::<usize>().prop_map(|pick| Action::Damage { pick }),
        2 => (0..17usize).prop_map(|kept| Action::Crash { kept }),
        1 => Just(Action::StoreGone),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Pending,
    Settled,
    Lost(Lost),
}

/// Points, timestamp and state of every record.
type Table = BTreeMap<Ticket, (u64, u32, State)>;

struct World {
    spill: Spill,
    table: Table,
    /// What was appended and is not written.
    staged: Table,
    /// Disk and table after every write since the last sync; the first is the synced one.
    history: Vec<(Disk, Table)>,
    witness: Option<(Vec<u8>, Table)>,
    damaged: Vec<Ticket>,
    seq: u32,
}

const LANES: [&str; 3] = [AGGREGATE, "aggregate:f1", "store/h:1"];

impl World {
    fn new() -> World {
        let spill = Disk::default().load(None).expect("empty");
        World {
            spill,
            table: Table::new(),
            staged: Table::new(),
            history: vec![(Disk::default(), Table::new())],
            witness: None,
            damaged: Vec::new(),
            seq: 0,
        }
    }

    fn disk(&self) -> &Disk {
        &self.history.last().expect("never empty").0
    }

    fn do_action(&mut self, action: Action) {
        match action {
            Action::Append { lane, points } => {
                self.seq += 1;
                let at = self.seq % 40;
                let batch = batch(self.seq / 8, self.seq, points, at);
                let ticket = self.spill.append(&Entry::batch(LANES[lane], &batch, Why::Timeout));
                self.staged.insert(ticket, (u64::from(points), at, State::Pending));
            }
            Action::Write => self.write(),
            Action::RefusedWrite => {
                self.spill.refused();
                self.staged.clear();
            }
            Action::Sync => self.sync(),
            Action::Settle { pick } => self.settle(pick, None),
            Action::Bury { pick } => self.settle(pick, Some(Lost::TooOld)),
            Action::Discard { from, to } => self.discard(from, to),
            Action::Cursor { pick } => self.cursor(pick),
            Action::Damage { pick } => self.damage(pick),
            Action::Crash { kept } => self.crash(kept),
            Action::StoreGone => self.store_gone(),
        }
    }

    fn write(&mut self) {
        let mut disk = self.disk().clone();
        disk.write(&mut self.spill);
        self.table.append(&mut self.staged);
        self.history.push((disk, self.table.clone()));
    }

    fn sync(&mut self) {
        // What the thread does: nothing changes between the write and the sync that covers it.
        self.write();
        let (mut disk, table) = self.history.pop().expect("just written");
        disk.forget(self.spill.synced());
        self.witness = Some((self.spill.witness(), table.clone()));
        self.history = vec![(disk, table)];
    }

    fn picked(&self, pick: usize) -> Option<Ticket> {
        let count = self.table.len().max(1);
        self.table.keys().nth(pick % count).copied()
    }

    fn settle(&mut self, pick: usize, lost: Option<Lost>) {
        let Some(ticket) = self.picked(pick) else { return };
        let Some(meta) = self.disk().read(&self.spill, ticket) else { return };
        let entry = self.table.get_mut(&ticket).expect("picked");
        let expected = if entry.2 == State::Pending { Settled::Now } else { Settled::Before };
        let settled = match lost {
            None => self.spill.settle(ticket, meta),
            Some(why) => self.spill.bury(ticket, meta, why, None),
        };
        assert_eq!(settled, expected, "{ticket:?}");
        if settled == Settled::Now {
            entry.2 = lost.map_or(State::Settled, State::Lost);
        }
    }

    fn discard(&mut self, from: u32, to: u32) {
        let filter = Filter::new(UnixSeconds(from), UnixSeconds(to), "").expect("no glob");
        let lanes: Vec<u16> = self.spill.lanes().iter().map(|lane| lane.lane).collect();
        let mut discard = Discard::matching(&lanes, filter);
        while let Some((_, range)) = discard.range(&self.spill) {
            for (_, value) in self.history.last().expect("disk").0.range(&range) {
                // Damaged ones are left to the check.
                discard.look(&mut self.spill, &value, &nobody).ok();
            }
            discard.lane_done();
        }
        let damaged = &self.damaged;
        let meant: Vec<Ticket> = self
            .table
            .iter()
            .filter(|(ticket, (_, at, state))| {
                *state == State::Pending && (from..=to).contains(at) && !damaged.contains(ticket)
            })
            .map(|(ticket, _)| *ticket)
            .collect();
        assert_eq!(discard.total().batches, meant.len() as u64);
        discard.apply(&mut self.spill).expect("few runs");
        for ticket in meant {
            self.table.get_mut(&ticket).expect("there").2 = State::Lost(Lost::Discarded);
        }
        self.find_damage();
    }

    fn cursor(&mut self, pick: usize) {
        let Some(to) = self.picked(pick) else { return };
        let Some(meta) = self.disk().read(&self.spill, to) else { return };
        Discard::before(&self.spill, to.lane, meta.run.first).apply(&mut self.spill).expect("few runs");
        for (_, entry) in self.table.range_mut(Ticket { lane: to.lane, ordinal: 0 }..to) {
            if entry.2 == State::Pending {
                entry.2 = State::Lost(Lost::Discarded);
            }
        }
        self.find_damage();
    }

    /// Lets checks that began run to their end.
    fn find_damage(&mut self) {
        let disk = self.disk().clone();
        for lane in self.spill.lanes() {
            self.spill.check(lane.lane);
        }
        disk.check(&mut self.spill);
        for ticket in &self.damaged {
            if let Some(entry) = self.table.get_mut(ticket).filter(|entry| entry.2 == State::Pending) {
                entry.2 = State::Lost(Lost::Corrupt);
            }
        }
    }

    /// Damages a record on disk; nobody has noticed.
    fn damage(&mut self, pick: usize) {
        let Some(ticket) = self.picked(pick).filter(|ticket| !self.damaged.contains(ticket)) else { return };
        let key = keys::record(ticket.lane, ticket.ordinal);
        for (disk, _) in &mut self.history {
            if pick.is_multiple_of(2) {
                disk.keys.remove(&key);
            } else if let Some(value) = disk.keys.get_mut(&key) {
                value[70] ^= 1;
            }
        }
        self.damaged.push(ticket);
    }

    fn crash(&mut self, kept: usize) {
        let kept = kept * (self.history.len() - 1) / 16;
        self.history.truncate(kept + 1);
        self.restart();
    }

    fn store_gone(&mut self) {
        let table = self.witness.as_ref().map(|(_, table)| table.clone()).unwrap_or_default();
        self.damaged = table.keys().copied().collect();
        self.history = vec![(Disk::default(), table)];
        self.restart();
    }

    fn restart(&mut self) {
        let (disk, table) = self.history.last().expect("never empty").clone();
        self.damaged.retain(|ticket| table.contains_key(ticket));
        self.table = table;
        self.staged.clear();
        let witness = self.witness.as_ref().map(|(witness, _)| witness.as_slice());
        self.spill = disk.load(witness).expect("loads");
        disk.check(&mut self.spill);
        self.find_damage();
        // The books are as they were found from here on, whatever comes.
        self.sync();
    }

    fn agree(&self) {
        balance(&self.spill);
        for view in self.spill.lanes() {
            let records = || self.table.iter().filter(|(ticket, _)| ticket.lane == view.lane);
            let sum = |wanted: State| {
                let points = records().filter(|(_, (_, _, state))| *state == wanted).map(|(_, (points, _, _))| *points);
                points.fold((0, 0), |(n, sum), points| (n + 1, sum + points))
            };
            let have = |tally: Tally| (tally.batches, tally.points);
            assert_eq!(view.tail, records().count() as u64, "{view:?}");
            assert_eq!(have(view.pending), sum(State::Pending), "{view:?}");
            assert_eq!(have(view.settled), sum(State::Settled), "{view:?}");
            for why in Lost::ALL {
                let dropped = view.dropped.iter().find(|(of, _)| *of == why).map(|(_, tally)| have(*tally));
                assert_eq!(dropped.unwrap_or_default(), sum(State::Lost(why)), "{why:?} {view:?}");
            }
            for (ticket, (_, at, state)) in records() {
                assert_eq!(self.spill.is_pending(*ticket), *state == State::Pending, "{ticket:?}");
                if *state == State::Pending {
                    let (oldest, newest) = view.span.expect("something is pending");
                    assert!((oldest.0..=newest.0).contains(at), "{at} not in {oldest:?}..={newest:?}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_books_are_right_after_any_crash(actions in prop::collection::vec(action(), 1..80)) {
        let mut world = World::new();
        for action in actions {
            world.do_action(action);
            world.agree();
        }
        world.crash(16);
        world.agree();
    }
}
