//! Random faults against a model of a store: it keeps the last write per series, loses what it had not read when it
//! dies, and may go on reading the bytes of a lost connection for almost `linger`, between the bytes of the next one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Block, Command, Due, Event, Overflow, Phase, Receipts, Settings, StoreLink};
use crate::spill::Why;
use crate::time::Mono;
use crate::wire::Ticket;

const LINGER: Duration = Duration::from_secs(6);
const SILENCE: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
enum Action {
    /// A block of so many points over these series.
    Offer {
        series: u8,
        points: u8,
    },
    Pass {
        millis: u64,
    },
    Connect {
        works: bool,
    },
    Write {
        blocks: usize,
    },
    Read {
        blocks: usize,
    },
    /// The connection breaks; unread bytes go, or linger. Of the block in the shell's hand some may have been written.
    Break {
        lingers: bool,
        with_hand: bool,
        by_eof: bool,
    },
    ReadLingering {
        blocks: usize,
    },
    /// The spill takes what is due; with `tells` it has all that it took.
    Spill {
        bytes: u64,
        tells: bool,
    },
    /// The spill dies, comes to be able, or ceases to be. `wrote`: what it had in hand for the journal is on disk.
    SpillTurns {
        restarts: bool,
        able: bool,
        wrote: bool,
    },
}

fn actions(faults: bool) -> impl Strategy<Value = Vec<Action>> {
    let fault = u32::from(faults);
    let action = prop_oneof![
        12 => (0..5u8, 1..5u8).prop_map(|(series, points)| Action::Offer { series, points }),
        8 => (1..2_000u64).prop_map(|millis| Action::Pass { millis }),
        6 => prop::bool::weighted(if faults { 0.8 } else { 1.0 }).prop_map(|works| Action::Connect { works }),
        14 => (1..6usize).prop_map(|blocks| Action::Write { blocks }),
        12 => (1..8usize).prop_map(|blocks| Action::Read { blocks }),
        3 * fault => any::<(bool, bool, bool)>()
            .prop_map(|(lingers, with_hand, by_eof)| Action::Break { lingers, with_hand, by_eof }),
        6 * fault => (1..4usize).prop_map(|blocks| Action::ReadLingering { blocks }),
        6 * fault => (1..200u64, any::<bool>()).prop_map(|(bytes, tells)| Action::Spill { bytes, tells }),
        2 * fault => any::<(bool, bool, bool)>()
            .prop_map(|(restarts, able, wrote)| Action::SpillTurns { restarts, able, wrote }),
    ];
    prop::collection::vec(action, 1..250)
}

/// The store: what it read, and what it may still read.
#[derive(Default)]
struct Store {
    /// With the moment of its writing.
    unread: VecDeque<(Mono, Bytes)>,
    /// A connection went with bytes that had waited for longer than `silence` and `linger`.
    sat_on_bytes: bool,
    lingering: Vec<(Mono, VecDeque<Bytes>)>,
    /// Series to the number of its last write; numbers grow with every point offered.
    last: BTreeMap<u8, u64>,
    /// Point number to how often it was read.
    reads: BTreeMap<u64, u32>,
}

impl Store {
    fn read(&mut self, block: &[u8]) {
        for line in block.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let line = std::str::from_utf8(line).unwrap();
            let (series, number) = line.split_once(' ').unwrap();
            let (series, number) = (series.parse().unwrap(), number.parse().unwrap());
            self.last.insert(series, number);
            *self.reads.entry(number).or_default() += 1;
        }
    }

    fn lose_connection(&mut self, lingers: bool, now: Mono) {
        let unread = std::mem::take(&mut self.unread);
        self.sat_on_bytes |= unread.iter().any(|&(written_at, _)| now.since(written_at) >= SILENCE + LINGER);
        if lingers {
            let unread = unread.into_iter().map(|(_, block)| block).collect();
            self.lingering.push((now + LINGER - Duration::from_millis(1), unread));
        }
    }
}

/// What a journal has on disk.
#[derive(Default)]
struct JournalDisk {
    /// Taken and not told.
    in_hand: Vec<Due>,
    /// Of the block behind each ordinal that was told, its numbers of points.
    records: Vec<Vec<u64>>,
    settled: BTreeSet<u64>,
}

impl JournalDisk {
    /// Everything in hand is on disk, and the link is told.
    fn tell(&mut self, link: &mut StoreLink, now: Mono) {
        for due in self.in_hand.drain(..) {
            let ticket = Ticket { lane: 0, ordinal: self.records.len() as u64 };
            let lines = due.block.bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
            let number = |line: &[u8]| std::str::from_utf8(line).unwrap().split_once(' ').unwrap().1.parse().unwrap();
            self.records.push(lines.map(number).collect());
            if !link.journalled(now, due.number, ticket) {
                self.settled.insert(ticket.ordinal);
            }
        }
    }

    fn settle(&mut self, tickets: Vec<Ticket>) {
        for ticket in tickets {
            assert!(self.settled.insert(ticket.ordinal), "settled twice: {ticket:?}");
        }
    }

    fn pending(&self) -> impl Iterator<Item = u64> {
        let pending = (0..).zip(&self.records).filter(|(ordinal, _)| !self.settled.contains(ordinal));
        pending.flat_map(|(_, points)| points.iter().copied())
    }

    fn points(&self) -> u64 {
        self.records.iter().map(|points| points.len() as u64).sum()
    }
}

struct World {
    link: StoreLink,
    settings: Settings,
    now: Mono,
    store: Store,
    hand: VecDeque<Bytes>,
    connect_asked: bool,
    half_closed: bool,
    newest: BTreeMap<u8, u64>,
    next_number: u64,
    refused: u32,
    was_unsupported: bool,
    /// What the spill took and did not tell: number and points.
    spilling: Vec<(u64, u32)>,
    /// Points of what it told.
    on_disk: u64,
    journal: JournalDisk,
    /// The spill failed with something in hand.
    has_failed: bool,
    /// Hazard 9: the order is no longer that of offering.
    gave_back: bool,
    released: u64,
}

impl World {
    fn new(retain_bytes: u64, overflow: Overflow, journal: bool) -> World {
        let settings = Settings {
            rotate: Duration::from_secs(5),
            rotate_bytes: 400,
            receipt_timeout: Duration::from_secs(2),
            linger: LINGER,
            silence: SILENCE,
            retain_bytes,
            overflow,
            journal,
            ..Settings::default()
        };
        World {
            link: StoreLink::new(settings, 7),
            settings,
            now: Mono::from_millis(1_000),
            store: Store::default(),
            hand: VecDeque::new(),
            connect_asked: false,
            half_closed: false,
            newest: BTreeMap::new(),
            next_number: 0,
            refused: 0,
            was_unsupported: false,
            spilling: Vec::new(),
            on_disk: 0,
            journal: JournalDisk::default(),
            has_failed: false,
            gave_back: false,
            released: 0,
        }
    }

    fn event(&mut self, event: Event) {
        self.link.handle(self.now, event);
        self.obey();
    }

    fn obey(&mut self) {
        while let Some(command) = self.link.next_command() {
            match command {
                Command::Connect => self.connect_asked = true,
                Command::HalfClose => {
                    assert!(self.hand.is_empty(), "half-close with blocks in the shell's hand");
                    self.half_closed = true;
                }
                // Closed without a loss: what the store's kernel holds will still be read, some time within linger.
                Command::Close => {
                    self.store.lose_connection(true, self.now);
                    self.half_closed = false;
                }
            }
        }
        self.was_unsupported |= self.link.receipts() == Receipts::Unsupported;
        self.link.log.audit();
        let slack = if self.settings.overflow == Overflow::Spill { self.settings.retain_bytes / 8 } else { 0 };
        let bound = self.settings.retain_bytes + slack + 64;
        assert!(self.link.held_bytes() <= bound, "the bound was passed by more than a block");
        let progress = self.link.progress();
        assert!(self.released <= progress.released && progress.released <= progress.offered, "{progress:?}");
        self.released = progress.released;
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Offer { series, points } => self.offer(series, points),
            Action::Pass { millis } => self.pass(millis),
            Action::Connect { works } => {
                if std::mem::take(&mut self.connect_asked) {
                    self.event(if works { Event::Connected } else { Event::ConnectFailed });
                }
            }
            Action::Write { blocks } => self.write(blocks),
            Action::Read { blocks } => self.read(blocks),
            Action::Break { lingers, with_hand, by_eof } => self.break_connection(lingers, with_hand, by_eof),
            Action::ReadLingering { blocks } => {
                let blocks: Vec<Bytes> = match self.store.lingering.first_mut() {
                    Some((_, unread)) => unread.drain(..blocks.min(unread.len())).collect(),
                    None => Vec::new(),
                };
                blocks.iter().for_each(|block| self.store.read(block));
            }
            Action::Spill { bytes, tells } => self.spill(bytes, tells),
            Action::SpillTurns { restarts, able, wrote } => self.spill_turns(restarts, able, wrote),
        }
    }

    fn spill_turns(&mut self, restarts: bool, able: bool, wrote: bool) {
        // A store that failed comes back only by a new life, which first tells what it finds.
        let restarts = restarts || able && self.has_failed;
        self.has_failed = !restarts && (self.has_failed || !able && !self.journal.in_hand.is_empty());
        if restarts || !able {
            self.gave_back |= !self.spilling.is_empty();
            self.spilling.clear();
        }
        if !able {
            // A store that failed: only the next life finds what it has.
            self.link.set_spill(false);
        }
        if restarts {
            if wrote {
                self.journal.tell(&mut self.link, self.now);
            }
            self.journal.in_hand.clear();
            self.link.spill_restarted();
        } else if !able && !wrote {
            self.journal.in_hand.clear();
        }
        self.link.set_spill(able);
        self.obey();
    }

    fn spill(&mut self, bytes: u64, tells: bool) {
        self.journal.settle(self.link.take_settled());
        let due = self.link.take_due(self.now, bytes);
        let (journal, due): (Vec<Due>, Vec<Due>) = due.into_iter().partition(|due| due.why == Why::Journal);
        self.journal.in_hand.extend(journal);
        if tells {
            self.journal.tell(&mut self.link, self.now);
        }
        self.spilling.extend(due.iter().map(|due| (due.number, due.block.points)));
        if let Some(&(last, _)) = self.spilling.last().filter(|_| tells) {
            self.link.spilled(self.now, last);
            self.on_disk += self.spilling.drain(..).map(|(_, points)| u64::from(points)).sum::<u64>();
        }
        self.obey();
    }

    fn offer(&mut self, series: u8, points: u8) {
        let mut text = String::new();
        for point in 0..points {
            text += &format!("{} {}\n", series + point, self.next_number + u64::from(point));
        }
        let block = Block { bytes: Bytes::from(text), points: u32::from(points) };
        let accepts = self.link.accepts(self.now);
        let answer = self.link.offer(self.now, block.clone());
        assert_eq!(accepts, answer.is_ok(), "accepts() and offer() disagree");
        match answer {
            Ok(()) => {
                for point in 0..points {
                    self.newest.insert(series + point, self.next_number + u64::from(point));
                }
                self.next_number += u64::from(points);
            }
            Err(back) => {
                assert_eq!(back, block);
                self.refused += 1;
            }
        }
        self.obey();
    }

    fn pass(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
        let now = self.now;
        self.store.lingering.retain(|(until, unread)| *until > now && !unread.is_empty());
        self.event(Event::Tick);
    }

    fn write(&mut self, blocks: usize) {
        if self.hand.is_empty() {
            let mut pulled = Vec::new();
            self.link.next_to_write(self.now, 90, 4, &mut pulled);
            self.hand.extend(pulled);
            self.obey();
        }
        let blocks = blocks.min(self.hand.len());
        if blocks > 0 {
            self.store.unread.extend(self.hand.drain(..blocks).map(|block| (self.now, block)));
            self.event(Event::Written { blocks });
        }
    }

    fn read(&mut self, blocks: usize) {
        for _ in 0..blocks {
            let Some((_, block)) = self.store.unread.pop_front() else { break };
            self.store.read(&block);
        }
        if self.half_closed && self.store.unread.is_empty() {
            self.half_closed = false;
            self.event(Event::Fin);
        }
    }

    fn break_connection(&mut self, lingers: bool, with_hand: bool, by_eof: bool) {
        if !matches!(self.link.phase(), Phase::Open | Phase::AwaitingReceipt) {
            return;
        }
        if with_hand {
            self.store.unread.extend(self.hand.front().map(|block| (self.now, block.clone())));
        }
        self.hand.clear();
        self.half_closed = false;
        self.store.lose_connection(lingers, self.now);
        self.event(if by_eof { Event::PeerClosed } else { Event::Reset });
        assert!(!self.half_closed, "half-close of a lost connection");
    }

    /// From now on the store works. Ends when nothing is due any more.
    fn heal(&mut self) {
        self.act(&Action::SpillTurns { restarts: true, able: true, wrote: true });
        for _ in 0..2_000 {
            self.spill(1_000, true);
            self.act(&Action::Connect { works: true });
            self.write(4);
            self.act(&Action::ReadLingering { blocks: 1 });
            self.read(100);
            self.pass(100);
        }
    }
}

fn check(actions: &[Action], retain_bytes: u64, overflow: Overflow) -> World {
    check_journal(actions, retain_bytes, overflow, false)
}

fn check_journal(actions: &[Action], retain_bytes: u64, overflow: Overflow, journal: bool) -> World {
    let mut world = World::new(retain_bytes, overflow, journal);
    world.obey();
    for action in actions {
        world.act(action);
    }
    world.heal();
    let books = world.link.books();
    assert_eq!(books.owed, world.next_number);
    assert_eq!(books.in_flight, 0, "after healing nothing is in flight");
    let on_disk = world.on_disk + world.journal.points();
    assert_eq!(books.spilled + books.journalled + books.answered_here, on_disk, "what is on disk is in the books");
    assert_eq!(world.link.held_bytes(), 0, "after healing nothing is held");
    let progress = world.link.progress();
    assert_eq!(progress.released, progress.offered, "after healing everything is released");
    let dropped = books.dropped_retain_full + books.dropped_spill_full;
    let pending: BTreeSet<u64> = world.journal.pending().collect();
    assert_eq!(books.journalled, 0, "after healing nothing is held");
    assert_eq!(pending.len() as u64, books.spilled - world.on_disk, "what is pending is what was handed over");
    // Of a store that was taken for one without receipts the link keeps bytes for a while only, or not even that under
    // pressure.
    let mut unconfirmed = 0;
    if world.was_unsupported {
        unconfirmed = books.reasserts_skipped;
        if world.store.sat_on_bytes {
            return world;
        }
    } else {
        assert_eq!(books.delivered_unconfirmed, 0, "after healing everything has a receipt");
    }
    let unread = world.next_number - world.store.reads.len() as u64;
    assert!(unread <= dropped + books.spilled + unconfirmed, "{unread} points never read, books say {books:?}");
    let lost =
        (0..world.next_number).filter(|point| !world.store.reads.contains_key(point) && !pending.contains(point));
    assert!(lost.count() as u64 <= dropped + world.on_disk + unconfirmed, "neither read nor on disk nor counted");
    if dropped + books.spilled + books.reasserts_skipped == 0 && !world.gave_back {
        assert_eq!(world.store.last, world.newest, "the last write is not the newest");
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn through_any_faults_every_point_is_read_and_the_newest_is_last(actions in actions(true)) {
        let world = check(&actions, 1 << 20, Overflow::DropOldest);
        prop_assert_eq!(world.link.books().dropped_retain_full, 0);
        prop_assert_eq!(world.refused, 0);
    }

    #[test]
    fn under_a_tight_bound_books_balance_and_only_counted_points_are_missing(actions in actions(true)) {
        check(&actions, 300, Overflow::DropOldest);
    }

    #[test]
    fn who_refuses_loses_nothing_under_a_tight_bound(actions in actions(true)) {
        let world = check(&actions, 300, Overflow::Refuse);
        prop_assert_eq!(world.link.books().dropped_retain_full, 0);
    }

    #[test]
    fn with_a_spill_every_point_is_read_or_on_disk_or_counted(actions in actions(true)) {
        check(&actions, 300, Overflow::Spill);
    }

    #[test]
    fn with_a_journal_what_is_not_read_is_on_disk_and_what_is_on_disk_is_known(actions in actions(true)) {
        check_journal(&actions, 300, Overflow::Spill, true);
    }

    #[test]
    fn with_a_journal_and_room_nothing_is_left_on_disk_or_it_is_the_spills(actions in actions(true)) {
        let world = check_journal(&actions, 1 << 20, Overflow::Spill, true);
        prop_assert_eq!(world.link.books().dropped_spill_full, 0);
    }

    #[test]
    fn without_faults_every_point_is_read_exactly_once(actions in actions(false)) {
        let world = check(&actions, 1 << 20, Overflow::DropOldest);
        // A store that reads too late to answer in time is a fault too.
        if world.link.counters().receipts_missed == 0 {
            prop_assert!(world.store.reads.values().all(|&reads| reads == 1), "something was sent twice");
        }
    }
}
