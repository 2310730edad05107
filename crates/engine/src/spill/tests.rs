//! Tables of cases over a store that is a map.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;
use crate::batch::{Builder, Claim, Incarnation, PartitionSet, Versions};
use crate::wire::LeaseRequest;

mod model;

pub(super) const OWN: u64 = 77;

/// A store: batches of operations in the order of their writing, and how many of them are synced.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) keys: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Disk {
    pub(super) fn apply(&mut self, spill: &Spill) {
        for op in spill.ops() {
            match op {
                Op::Put { key, value } => drop(self.keys.insert(key, value)),
                Op::Delete { key } => drop(self.keys.remove(&key)),
            }
        }
        self.keys.extend(spill.records().map(|(key, value)| (key.to_vec(), value.to_vec())));
    }

    pub(super) fn write(&mut self, spill: &mut Spill) {
        self.apply(spill);
        spill.written();
    }

    pub(super) fn range(&self, range: &(Vec<u8>, Vec<u8>)) -> Vec<(Vec<u8>, Vec<u8>)> {
        if range.0 >= range.1 {
            return Vec::new();
        }
        self.keys.range(range.0.clone()..range.1.clone()).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    pub(super) fn forget(&mut self, ranges: Vec<(Vec<u8>, Vec<u8>)>) {
        for range in ranges {
            self.range(&range).into_iter().for_each(|(key, _)| drop(self.keys.remove(&key)));
        }
    }

    pub(super) fn load(&self, witness: Option<&[u8]>) -> Result<Spill, LoadError> {
        let entries: Vec<(Bytes, Bytes)> =
            self.range(&books_range()).into_iter().map(|(key, value)| (Bytes::from(key), Bytes::from(value))).collect();
        let mut spill = Spill::load(OWN, "test 1", &entries, witness)?;
        for range in spill.beyond_books() {
            self.range(&range).iter().for_each(|(key, value)| spill.found(key, value));
        }
        spill.loaded(UnixSeconds(50));
        Ok(spill)
    }

    pub(super) fn check(&self, spill: &mut Spill) {
        while let Some((lane, range)) = spill.check_range() {
            self.range(&range).iter().for_each(|(_, value)| spill.checked(lane, value));
            spill.checked_all(lane);
        }
    }

    pub(super) fn read(&self, spill: &Spill, ticket: Ticket) -> Option<Meta> {
        let value = self.keys.get(&keys::record(ticket.lane, ticket.ordinal))?;
        decode(value).ok().map(|record| spill.meta(&record))
    }
}

pub(super) fn batch(epoch: u32, seq: u32, points: u32, at: u32) -> Batch {
    let mut builder = Builder::new(PartitionSet(1), 0);
    for n in 0..points {
        let line = format!("a.b{n} 1 {at}\n");
        builder.append(line.as_bytes(), 1, UnixSeconds(at), UnixSeconds(at));
    }
    let claims = [Claim { partition: 0, from: seq }];
    builder.seal(Incarnation { sender: OWN, epoch, nonce: 1 }, seq, Versions::default(), &claims)
}

fn nobody(_: Origin<'_>) -> bool {
    false
}

/// A spill with `n` batches of 10 points each in lane 0; batch `i` of epoch `i / 4`, timestamp `100 + i`.
fn filled(n: u32) -> (Spill, Disk) {
    let mut disk = Disk::default();
    let mut spill = disk.load(None).expect("empty");
    for seq in 0..n {
        spill.append(&Entry::batch(AGGREGATE, &batch(seq / 4, seq, 10, 100 + seq), Why::Timeout));
    }
    disk.write(&mut spill);
    spill.synced();
    (spill, disk)
}

fn ticket(ordinal: u64) -> Ticket {
    Ticket { lane: 0, ordinal }
}

#[track_caller]
fn balance(spill: &Spill) {
    for lane in spill.lanes() {
        let mut sum = lane.pending;
        sum.add(lane.settled);
        lane.dropped.iter().for_each(|(_, tally)| sum.add(*tally));
        assert_eq!(sum, lane.spilled, "{lane:?}");
    }
}

fn settle(spill: &mut Spill, disk: &Disk, ordinal: u64) -> Settled {
    let meta = disk.read(spill, ticket(ordinal)).expect("readable");
    spill.settle(ticket(ordinal), meta)
}

fn request(max_bytes: u32, max_points: u32, from: u32, to: u32, matching: &str) -> LeaseRequest {
    let (from, to) = (UnixSeconds(from), UnixSeconds(to));
    LeaseRequest { number: 1, lane: 0, max_bytes, max_points, from, to, matching: matching.into() }
}

fn lease(spill: &mut Spill, disk: &Disk, holder: u64, request: &LeaseRequest, held: &[u32]) -> Vec<u64> {
    let mut lent = Vec::new();
    let mut grant = spill.grant(holder, request).expect("a glob");
    'grant: while let Some(range) = spill.grant_range(&mut grant, &|_| None) {
        for (key, value) in disk.range(&range) {
            let is_held = |origin: Origin<'_>| matches!(origin.content, Content::Batch(id) if held.contains(&id.seq));
            match spill.offer(&mut grant, &key, &value, &is_held, Mono::ZERO) {
                Offered::Lent(leased) => lent.push(leased.ticket.ordinal),
                Offered::Skipped => {}
                Offered::Jump => continue 'grant,
                Offered::Enough => break 'grant,
            }
        }
        spill.grant_ended(&mut grant);
    }
    assert_eq!(grant.granted as usize, lent.len());
    spill.granted(grant);
    lent
}

const ALL: (u32, u32) = (0, u32::MAX);

#[test]
fn each_destination_has_a_lane_and_each_lane_its_ordinals() {
    let mut disk = Disk::default();
    let mut spill = disk.load(None).expect("empty");
    let one = batch(1, 0, 5, 60);
    let tickets: Vec<Ticket> = ["a", "b", "a"]
        .into_iter()
        .map(|destination| spill.append(&Entry::batch(destination, &one, Why::Timeout)))
        .collect();
    let lines = Entry::block("s/h:1", b"a 1 60\nb 1 70\n", 2, 1, 0, Why::Memory);
    let block = spill.append(&lines);
    let expected = [(0, 0), (1, 0), (0, 1)].map(|(lane, ordinal)| Ticket { lane, ordinal });
    assert_eq!((tickets.as_slice(), block), (&expected[..], Ticket { lane: 2, ordinal: 0 }));
    disk.write(&mut spill);
    let again = disk.load(None).expect("as written");
    assert_eq!(again.lane_named("s/h:1"), Some(2));
    assert_eq!(again.lane(2).expect("lane").span, Some((UnixSeconds(60), UnixSeconds(70))));
    assert_eq!(again.lane(0).expect("lane").pending.points, 10);
    balance(&again);
}

#[test]
fn what_the_store_refused_is_as_if_it_had_not_been() {
    let (mut spill, mut disk) = filled(2);
    spill.append(&Entry::batch("new", &batch(1, 9, 5, 60), Why::Timeout));
    spill.append(&Entry::batch(AGGREGATE, &batch(1, 9, 5, 60), Why::Timeout));
    spill.refused();
    assert_eq!((spill.lane(0).expect("lane").tail, spill.lane(1).expect("lane").tail), (2, 0));
    let ticket = spill.append(&Entry::batch(AGGREGATE, &batch(1, 10, 5, 60), Why::Timeout));
    assert_eq!(ticket.ordinal, 2);
    disk.write(&mut spill);
    let mut again = disk.load(None).expect("as written");
    disk.check(&mut again);
    assert_eq!(again.lane(0).expect("lane").pending.points, 25);
    balance(&again);
}

#[test]
fn settling_in_any_order_twice_or_without_a_record_balances() {
    for order in [[0, 1, 2, 3], [3, 1, 0, 2], [2, 2, 2, 1]] {
        let (mut spill, mut disk) = filled(4);
        let mut settled = std::collections::BTreeSet::new();
        for ordinal in order {
            let first = settled.insert(ordinal);
            let expected = if first { Settled::Now } else { Settled::Before };
            assert_eq!(settle(&mut spill, &disk, ordinal), expected);
            disk.write(&mut spill);
            balance(&spill);
        }
        let meta = disk.read(&spill, ticket(0)).expect("readable");
        assert_eq!(spill.settle(ticket(99), meta), Settled::Before, "of another record");
        assert_eq!(spill.settle(Ticket { lane: 9, ordinal: 0 }, meta), Settled::Before, "of no lane");
        let mut again = disk.load(None).expect("as written");
        disk.check(&mut again);
        assert_eq!(again.lanes()[0].pending.batches, 4 - settled.len() as u64);
        assert_eq!(again.lanes()[0].settled.points, 10 * settled.len() as u64);
    }
}

#[test]
fn where_the_runs_are_gone_the_witness_stands_in_and_without_it_they_are_pending_again() {
    let (mut spill, mut disk) = filled(6);
    settle(&mut spill, &disk, 3);
    let meta = disk.read(&spill, ticket(5)).expect("readable");
    assert_eq!(spill.bury(ticket(5), meta, Lost::TooOld, None), Settled::Now);
    disk.write(&mut spill);
    spill.synced();
    let witness = spill.witness();
    disk.keys.remove(&b"r\0\0"[..]).expect("runs of lane 0");
    for (witness, pending, settled, too_old) in [(Some(&witness[..]), 4, 1, 1), (None, 6, 0, 0)] {
        let again = disk.load(witness).expect("as written");
        balance(&again);
        let lane = again.lane(0).expect("lane");
        let dropped = lane.dropped.iter().map(|(_, tally)| tally.batches).sum::<u64>();
        assert_eq!((lane.pending.batches, lane.settled.batches, dropped), (pending, settled, too_old));
    }
}

#[test]
fn the_oldest_epoch_and_timestamp_follow_what_is_pending() {
    let (mut spill, disk) = filled(10);
    assert_eq!(spill.oldest(), (Some(0), Some(UnixSeconds(100))));
    (0..5).for_each(|ordinal| assert_eq!(settle(&mut spill, &disk, ordinal), Settled::Now));
    let (epoch, oldest) = spill.oldest();
    assert_eq!(epoch, Some(1));
    assert!(oldest.is_some_and(|oldest| oldest <= UnixSeconds(105)), "never too narrow");
    (5..10).for_each(|ordinal| assert_eq!(settle(&mut spill, &disk, ordinal), Settled::Now));
    assert_eq!(spill.oldest(), (None, None));
    let mut again = disk.load(None).expect("as written");
    assert_eq!(again.oldest().0, Some(0), "not known before the check");
    disk.check(&mut again);
    assert_eq!(again.oldest(), (Some(0), Some(UnixSeconds(100))), "settling was not written");
}

#[test]
fn leases_give_the_oldest_first_within_bounds_and_never_twice() {
    let all = |bytes, points| request(bytes, points, ALL.0, ALL.1, "");
    let (mut spill, disk) = filled(40);
    assert_eq!(lease(&mut spill, &disk, 1, &all(1, 1), &[]), [0], "at least one");
    assert_eq!(lease(&mut spill, &disk, 2, &all(1 << 20, 35), &[2]), [1, 3, 4], "not what the live path has in hand");
    settle(&mut spill, &disk, 6);
    assert_eq!(lease(&mut spill, &disk, 1, &all(1 << 20, 20), &[2]), [5, 7], "not what is settled");
    assert_eq!(spill.backlog().lanes[0].leased, 60);
    spill.end_leases_of(2);
    assert_eq!(lease(&mut spill, &disk, 3, &all(1 << 20, 40), &[]), [1, 2, 3, 4], "what a lost link had comes again");
    spill.tick(Mono::ZERO + LEASE_FOR, UnixSeconds(60));
    assert_eq!(spill.backlog().lanes[0].leased, 0);
    let rest = lease(&mut spill, &disk, 3, &all(1 << 20, 10_000), &[]);
    assert_eq!(rest.first(), Some(&0));
    assert_eq!(rest.len(), 39);
    assert!(lease(&mut spill, &disk, 3, &all(1 << 20, 10_000), &[]).is_empty());
    spill.release(ticket(9));
    assert_eq!(lease(&mut spill, &disk, 3, &all(1 << 20, 10_000), &[]), [9]);
}

#[test]
fn leases_may_ask_for_a_time_range_and_for_series() {
    let (mut spill, disk) = filled(10);
    let asked = |from, to, glob| request(1 << 20, 1000, from, to, glob);
    assert_eq!(lease(&mut spill, &disk, 1, &asked(103, 105, ""), &[]), [3, 4, 5]);
    assert!(lease(&mut spill, &disk, 1, &asked(0, u32::MAX, "x.*"), &[]).is_empty());
    assert_eq!(lease(&mut spill, &disk, 1, &asked(0, 101, "a.b3"), &[]), [0, 1]);
    assert!(spill.grant(1, &asked(0, 1, "a.{")).is_err());
}

#[test]
fn a_record_in_the_midst_that_is_gone_is_found_by_lending_and_counted_exactly() {
    let (mut spill, mut disk) = filled(10);
    for ordinal in [3, 4, 9] {
        disk.keys.remove(&keys::record(0, ordinal));
    }
    disk.keys.get_mut(&keys::record(0, 6)).expect("there")[80] ^= 1;
    let all = request(1 << 20, 10_000, 0, u32::MAX, "");
    assert_eq!(lease(&mut spill, &disk, 1, &all, &[]), [0, 1, 2, 5, 7, 8]);
    disk.check(&mut spill);
    let lane = spill.lane(0).expect("lane");
    assert_eq!(lane.dropped, [(Lost::Corrupt, Tally { bytes: lane.dropped[0].1.bytes, batches: 4, points: 40 })]);
    let gaps: Vec<(u64, u64, u64)> = lane.gaps.iter().map(|gap| (gap.first, gap.last, gap.points)).collect();
    assert_eq!(gaps, [(3, 4, 20), (6, 6, 10), (9, 9, 10)]);
    balance(&spill);
    disk.write(&mut spill);
    let again = disk.load(None).expect("as written");
    assert_eq!(again.lane(0).expect("lane").gaps, lane.gaps);
}

#[test]
fn the_witness_says_what_was_lost_with_the_whole_store() {
    let (mut spill, mut disk) = filled(10);
    (0..3).chain([7]).for_each(|ordinal| assert_eq!(settle(&mut spill, &disk, ordinal), Settled::Now));
    disk.write(&mut spill);
    spill.synced();
    let witness = spill.witness();
    let disk = Disk::default();
    let mut again = disk.load(Some(&witness)).expect("loads");
    disk.check(&mut again);
    let lane = again.lane(0).expect("lane");
    assert_eq!((lane.pending.batches, lane.settled.points, lane.spilled.points), (0, 40, 100));
    assert_eq!(lane.dropped.iter().map(|(why, tally)| (*why, tally.points)).collect::<Vec<_>>(), [(Lost::Corrupt, 60)]);
    let ticket = again.append(&Entry::batch(AGGREGATE, &batch(1, 9, 5, 60), Why::Timeout));
    assert_eq!(ticket.ordinal, 10, "ordinals are not used again");
    for damaged in [&b""[..], b"SPW1", &witness[..40]] {
        assert!(disk.load(Some(damaged)).expect("loads").lanes().is_empty());
    }
}

#[test]
fn records_without_books_are_found_by_themselves() {
    let (_, mut disk) = filled(10);
    disk.keys.retain(|key, _| key[0] >= 0x80);
    disk.keys.remove(&keys::record(0, 0));
    disk.keys.remove(&keys::record(0, 5));
    let mut again = disk.load(None).expect("loads");
    disk.check(&mut again);
    let lane = again.lane(0).expect("lane");
    assert_eq!((lane.destination.as_str(), lane.pending.batches, lane.spilled.points), (AGGREGATE, 8, 100));
    assert_eq!((lane.settled.points, lane.dropped[0].1.points), (10, 10));
    balance(&again);
}

#[test]
fn a_newer_spill_is_refused_with_who_wrote_it() {
    let mut disk = Disk::default();
    disk.keys.insert(b"v".to_vec(), b"\x00\x02spillway 9.9".to_vec());
    let error = disk.load(None).expect_err("newer");
    assert_eq!(error, LoadError::Newer { format: 2, program: "spillway 9.9".into() });
}

fn discard(spill: &mut Spill, disk: &Disk, filter: Filter) -> Discard {
    let mut discard = Discard::matching(&[0], filter);
    while let Some((_, range)) = discard.range(spill) {
        for (_, value) in disk.range(&range) {
            discard.look(spill, &value, &nobody).expect("readable");
        }
        discard.lane_done();
    }
    discard
}

#[test]
fn a_discard_does_what_its_dry_run_said() {
    for (from, to, glob, expected) in [
        (0, u32::MAX, "", 9),
        (102, 104, "", 3),
        (0, u32::MAX, "a.*", 9),
        (0, u32::MAX, "a.b1", 0),
        (106, u32::MAX, "a.**", 3),
    ] {
        let (mut spill, mut disk) = filled(10);
        settle(&mut spill, &disk, 6);
        let filter = || Filter::new(UnixSeconds(from), UnixSeconds(to), glob).expect("a glob");
        let dry = discard(&mut spill, &disk, filter()).total();
        assert_eq!(dry.batches, expected, "{from} {to} {glob}");
        let lost = discard(&mut spill, &disk, filter()).apply(&mut spill).expect("few runs");
        assert_eq!(
            lost.iter().map(|(_, tally)| *tally).fold(Tally::default(), |mut sum, t| {
                sum.add(t);
                sum
            }),
            dry
        );
        balance(&spill);
        disk.write(&mut spill);
        let mut again = disk.load(None).expect("as written");
        disk.check(&mut again);
        assert_eq!(again.lane(0).expect("lane").pending.batches, 9 - expected);
        balance(&again);
    }
}

#[test]
fn a_cursor_gives_up_what_is_before_it() {
    let (mut spill, disk) = filled(10);
    settle(&mut spill, &disk, 2);
    let to = disk.read(&spill, ticket(5)).expect("readable").run.first;
    let cursor = Discard::before(&spill, 0, to);
    assert_eq!((cursor.total().batches, cursor.total().points), (4, 40));
    cursor.apply(&mut spill).expect("few runs");
    let lane = spill.lane(0).expect("lane");
    assert_eq!((lane.head, lane.pending.batches, lane.gaps.len()), (5, 5, 2));
    balance(&spill);
}

#[test]
fn a_dead_letter_keeps_its_record_and_counts_as_its_reason() {
    let (mut spill, mut disk) = filled(3);
    let meta = disk.read(&spill, ticket(1)).expect("readable");
    let value = disk.keys[&keys::record(0, 1)].clone();
    assert_eq!(spill.bury(ticket(1), meta, Lost::Poison, Some(&value)), Settled::Now);
    assert_eq!(spill.bury(ticket(1), meta, Lost::Poison, Some(&value)), Settled::Before);
    disk.write(&mut spill);
    assert_eq!((disk.range(&dead_range()).len(), spill.dead_letters()), (1, meta.run.tally()));
    let again = disk.load(None).expect("as written");
    assert_eq!(again.dead_letters(), meta.run.tally());
    assert_eq!(spill.lane(0).expect("lane").dropped, [(Lost::Poison, meta.run.tally())]);
    balance(&spill);
}

#[test]
fn an_import_keeps_the_identity_and_takes_a_new_place() {
    let (_, source) = filled(3);
    let (mut spill, mut disk) = filled(2);
    for (_, value) in source.range(&records_from(0, 0)) {
        spill.import(&decode(&value).expect("a record"));
    }
    disk.write(&mut spill);
    let value = disk.keys[&keys::record(0, 4)].clone();
    let record = decode(&value).expect("a record");
    assert_eq!((record.header.why, record.header.content), (Why::Import, Content::Batch(batch(0, 2, 1, 1).id())));
    let mut again = disk.load(None).expect("as written");
    disk.check(&mut again);
    assert_eq!(again.lane(0).expect("lane").pending.points, 50);
    assert!(again.lane(0).expect("lane").gaps.is_empty());
}

#[test]
fn what_the_live_path_is_known_to_have_is_passed_without_reading_and_lent_when_it_has_let_go() {
    let (mut spill, disk) = filled(12);
    let all = request(1 << 20, 10_000, ALL.0, ALL.1, "");
    for (held, expected, reads) in [
        (&[0, 1, 5, 11][..], &[2, 3, 4, 6, 7, 8, 9, 10][..], 8),
        (&[0, 1, 5, 11], &[], 0),
        (&[0, 11], &[1, 5], 2),
        (&[], &[0, 11], 2),
    ] {
        let next_held = |from: Ticket| held.iter().copied().find(|ordinal| *ordinal >= from.ordinal);
        let mut grant = spill.grant(1, &all).expect("no glob");
        let (mut lent, mut read) = (Vec::new(), 0);
        while let Some(range) = spill.grant_range(&mut grant, &next_held) {
            for (key, value) in disk.range(&range) {
                read += 1;
                match spill.offer(&mut grant, &key, &value, &nobody, Mono::ZERO) {
                    Offered::Lent(leased) => lent.push(leased.ticket.ordinal),
                    Offered::Skipped => read -= 1,
                    Offered::Jump | Offered::Enough => panic!("neither"),
                }
            }
            spill.grant_ended(&mut grant);
        }
        spill.granted(grant);
        assert_eq!((lent.as_slice(), read), (expected, reads), "{held:?}");
    }
    assert!(spill.check_range().is_none(), "nothing is missing");
}

#[test]
fn who_may_have_a_record_besides_the_spill_is_told_apart_by_why_it_was_written() {
    let mut spill = Disk::default().load(None).expect("empty");
    for why in [Why::Journal, Why::Memory] {
        spill.append(&Entry::block("s/h:1", b"a 1 60\n", 1, 4, 9, why));
    }
    let origins: Vec<(Why, Content, String)> = spill
        .records()
        .map(|(_, value)| {
            let record = decode(value).expect("a record");
            let Origin { why, content, destination } = record.header.origin();
            (why, content, destination.to_owned())
        })
        .collect();
    let content = Content::Block { epoch: 4, number: 9 };
    assert_eq!(origins, [Why::Journal, Why::Memory].map(|why| (why, content, "s/h:1".to_owned())));
}
