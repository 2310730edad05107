//! What operators ask.

use super::*;

async fn filled(n: u32) -> (World, MemDisk) {
    let disk = MemDisk::new(1 << 30);
    let live = Arc::new(Fake::default());
    let world = World::start(Arc::clone(&live), memory(&disk, &MemWitness::default(), &Steps::default()), 1 << 30);
    live.give((0..n).map(|seq| due(seq, 10, Why::Timeout)));
    world.handle.wake();
    world.until_told().await;
    (world, disk)
}

fn page(lane: u16, from: u64, limit: u32) -> Page {
    Page { lane, from, limit }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_listed_verified_and_exported_in_pages() {
    let (world, disk) = filled(12).await;
    let SpillAnswer::Records(first) = world.ask(SpillRequest::Records(page(0, 0, 5))).await.expect("a page") else {
        panic!("no records");
    };
    assert_eq!((first.records.len(), first.next), (5, Some(5)));
    assert_eq!(first.records[3].id, "0000000000000007/3/3");
    assert_eq!((first.records[3].why.as_str(), first.records[3].state.as_str()), ("timeout", "pending"));
    let SpillAnswer::Verified(all) = world.ask(SpillRequest::Verify(page(0, 0, 1_000))).await.expect("a page") else {
        panic!("not verified");
    };
    assert_eq!((all.records, all.points, all.next), (12, 120, None));
    let refused = world.ask(SpillRequest::Records(page(9, 0, 5))).await.expect_err("no such lane");
    assert!(format!("{refused:?}").contains("0 (aggregate)"), "{refused:?}");
    drop(disk);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_can_be_imported_elsewhere_and_a_damaged_one_changes_nothing() {
    let (world, _disk) = filled(12).await;
    let SpillAnswer::Exported { bytes, next } =
        world.ask(SpillRequest::Export(page(0, 0, 1_000))).await.expect("bytes")
    else {
        panic!("no export");
    };
    assert_eq!(next, None);
    let (other, _other_disk) = filled(1).await;
    let mut damaged = bytes.to_vec();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let before = other.status().await.lanes;
    let export = bytes.clone();
    for bad in [Bytes::from(damaged), bytes.slice(..bytes.len() - 3)] {
        other.ask(SpillRequest::Import(bad, String::new())).await.expect_err("damaged");
    }
    assert_eq!(other.status().await.lanes, before);
    let SpillAnswer::Imported(imported) = other.ask(SpillRequest::Import(bytes, String::new())).await.expect("taken")
    else {
        panic!("not imported");
    };
    assert_eq!((imported.records, imported.points), (12, 120));
    other.until("it is in the books", || other.handle.ledger_of(AGGREGATE).carried == 120).await;
    other.balance(AGGREGATE, AGGREGATE);
    // Whoever missed the answer asks again, several at once, and hears the same.
    let again: Vec<_> =
        (0..3).map(|_| other.handle.request(SpillRequest::Import(export.clone(), String::new()))).collect();
    for answer in again {
        assert_eq!(answer.await.expect("an answer").expect("taken"), SpillAnswer::Imported(imported.clone()));
    }
    assert_eq!((other.handle.audit().len(), other.handle.ledger_of(AGGREGATE).carried), (1, 120));
    let lent = link(&other).lease(0, 10_000).await;
    assert_eq!(lent.len(), 13);
    assert_eq!(Batch::decode(lent[12].1.clone()).expect("a batch").id(), batch(11, 1, 1).id());
    drop(lent);
    // After something was given up it is no retry.
    let all = SpillDiscard { force: true, by: "me".into(), ..SpillDiscard::default() };
    for _ in 0..2 {
        other.ask(SpillRequest::Discard(all.clone())).await.expect("forced");
    }
    assert_eq!(other.handle.audit().len(), 2, "the second found nothing");
    other.ask(SpillRequest::Import(export, String::new())).await.expect("taken");
    assert_eq!((other.handle.audit().len(), other.handle.ledger_of(AGGREGATE).carried), (3, 240));
    world.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_import_many_times_at_once_is_taken_up_once() {
    let (world, _disk) = filled(12).await;
    let SpillAnswer::Exported { bytes, .. } = world.ask(SpillRequest::Export(page(0, 0, 1_000))).await.expect("bytes")
    else {
        panic!("no export");
    };
    let (other, _other_disk) = filled(1).await;
    let asked: Vec<_> =
        (0..5).map(|_| other.handle.request(SpillRequest::Import(bytes.clone(), String::new()))).collect();
    for (n, answer) in asked.into_iter().enumerate() {
        // The first has gone away before its answer.
        if n > 0 {
            answer.await.expect("an answer").expect("taken");
        }
    }
    assert_eq!((other.handle.audit().len(), other.handle.ledger_of(AGGREGATE).carried), (1, 120));
    world.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discard_says_what_it_would_lose_and_does_it_when_it_is_forced() {
    let (world, _disk) = filled(12).await;
    let asked = SpillDiscard { from: Some(1_003), to: Some(1_005), by: "me".into(), ..SpillDiscard::default() };
    let loss = |done| SpillLoss { batches: 3, points: 30, oldest: Some(1_003), newest: Some(1_005), done, bytes: 0 };
    let bare = |answer: Result<SpillAnswer, admin::Refusal>| match answer {
        Ok(SpillAnswer::Loss(loss)) => SpillLoss { bytes: 0, ..loss },
        other => panic!("no loss: {other:?}"),
    };
    let dry = world.ask(SpillRequest::Discard(SpillDiscard { dry_run: true, ..asked.clone() })).await;
    assert_eq!(bare(dry), loss(false));
    let refused = world.ask(SpillRequest::Discard(asked.clone())).await.expect_err("it would lose data");
    assert!(format!("{refused:?}").contains("points: 30"), "{refused:?}");
    assert_eq!(world.status().await.lanes[0].pending_points, 120);
    let done = world.ask(SpillRequest::Discard(SpillDiscard { force: true, ..asked })).await;
    assert_eq!(bare(done), loss(true));
    let lane = world.status().await.lanes.remove(0);
    assert_eq!((lane.pending_points, lane.dropped.get("discarded")), (90, Some(&30)));
    assert_eq!((lane.gaps[0].from, lane.gaps[0].to), (3, 5));
    world.balance(AGGREGATE, AGGREGATE);
    let audit = world.handle.audit();
    assert_eq!((audit.len(), audit[0].by.as_str()), (1, "me"));
    for wrong in [
        SpillDiscard { destination: Some("nowhere".into()), ..SpillDiscard::default() },
        SpillDiscard { matching: Some("a.{".into()), ..SpillDiscard::default() },
        SpillDiscard { from: Some(9), to: Some(8), ..SpillDiscard::default() },
    ] {
        world.ask(SpillRequest::Discard(wrong)).await.expect_err("wrong");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_moves_over_what_it_is_allowed_to_lose() {
    let (world, _disk) = filled(12).await;
    let asked = |to, force| {
        let by = "me".to_owned();
        SpillRequest::Cursor(CursorAdvance { destination: AGGREGATE.into(), to, dry_run: false, force, by })
    };
    world.ask(asked(4, false)).await.expect_err("it would lose data");
    world.ask(asked(40, true)).await.expect_err("behind the end");
    world.ask(asked(4, true)).await.expect("it is forced");
    let lane = world.status().await.lanes.remove(0);
    assert_eq!((lane.head, lane.pending_points), (4, 80));
    world.ask(asked(4, false)).await.expect("nothing is lost");
    world.ask(asked(12, true)).await.expect("to the end");
    assert_eq!(world.status().await.lanes[0].pending_batches, 0);
    world.balance(AGGREGATE, AGGREGATE);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_exported_and_given_up() {
    let (world, _disk) = filled(4).await;
    let borrower = link(&world);
    borrower.lease(0, 1_000).await;
    borrower.done(Outcome::Poison, vec![Ticket { lane: 0, ordinal: 1 }, Ticket { lane: 0, ordinal: 2 }]);
    world.until("they are refused", || world.handle.ledger_of(AGGREGATE).dropped.get("poison") == Some(&20)).await;
    let status = world.status().await;
    let dead = status.lanes.last().expect("lanes");
    assert_eq!((dead.destination.as_str(), dead.spilled_points), ("dead_letters", 20));
    let SpillAnswer::Records(listed) = world.ask(SpillRequest::Records(page(dead.lane, 0, 1))).await.expect("a page")
    else {
        panic!("no records");
    };
    assert_eq!((listed.records[0].id.as_str(), listed.next), ("0000000000000007/3/1", Some(1)));
    assert_eq!(listed.records[0].state, "dead");
    let SpillAnswer::Exported { bytes, .. } =
        world.ask(SpillRequest::Export(page(dead.lane, 0, 9))).await.expect("bytes")
    else {
        panic!("no export");
    };
    assert!(!bytes.is_empty());
    let asked = |force| {
        SpillRequest::Discard(SpillDiscard {
            destination: Some("dead_letters".into()),
            force,
            ..SpillDiscard::default()
        })
    };
    world.ask(asked(false)).await.expect_err("it would lose them");
    world.ask(asked(true)).await.expect("it is forced");
    assert_eq!(world.status().await.lanes.len(), 1);
    world.balance(AGGREGATE, AGGREGATE);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_missing_are_found_by_a_verify_and_are_no_longer_pending() {
    let (steps, live) = (Steps::default(), Arc::new(Fake::default()));
    let disk = MemDisk::new(1 << 30);
    let world = World::start(Arc::clone(&live), memory(&disk, &MemWitness::default(), &steps), 1 << 30);
    live.give((0..12).map(|seq| due(seq, 10, Why::Timeout)));
    world.handle.wake();
    world.until_told().await;
    for ordinal in [3, 4, 11] {
        locked(&steps.hidden).insert(engine::spill::key(0, ordinal));
    }
    let SpillAnswer::Verified(found) = world.ask(SpillRequest::Verify(page(0, 0, 1_000))).await.expect("a page") else {
        panic!("not verified");
    };
    assert_eq!((found.records, found.next), (9, None));
    assert_eq!(found.damaged, ["lane 0 ordinals 3 to 4: missing", "lane 0 ordinals 11 to 11: missing"]);
    world.until("it is counted", || world.handle.ledger_of(AGGREGATE).dropped.get("corrupt") == Some(&30)).await;
    let status = world.status().await;
    let lane = &status.lanes[0];
    let gaps: Vec<(u64, u64, u64)> = lane.gaps.iter().map(|gap| (gap.from, gap.to, gap.points)).collect();
    assert_eq!((lane.pending_points, lane.checking, gaps), (90, false, vec![(3, 4, 20), (11, 11, 10)]));
    world.balance(AGGREGATE, AGGREGATE);
    world.stop().await;
}
