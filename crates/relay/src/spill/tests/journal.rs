//! Blocks of a real sender that journals, through lives of the thread and of the process.

use engine::store_link::Event;

use super::*;

const AMPLE: u64 = 1 << 30;

fn fresh() -> (MemDisk, MemWitness, Arc<Fake>) {
    (MemDisk::new(AMPLE), MemWitness::default(), Arc::new(Fake::with_sender()))
}

/// Offers blocks of five points.
fn offer(live: &Fake, blocks: u64) {
    let first = live.of_sender(|sender| sender.progress().offered);
    for number in first..first + blocks {
        let lines: String = (0..5).map(|n| format!("raw.{number}.{n} 1 {}\n", 2_000 + number)).collect();
        let block = Block { bytes: Bytes::from(lines), points: 5 };
        assert!(live.of_sender(|sender| sender.offer(Mono::ZERO, block).is_ok()), "it has room");
    }
}

/// The store takes so many blocks, and says that it has read them.
fn receipt(live: &Fake, blocks: usize) {
    live.of_sender(|sender| {
        let now = Mono::ZERO;
        sender.handle(now, Event::Tick);
        sender.handle(now, Event::Connected);
        while sender.next_command().is_some() {}
        let mut hand = Vec::new();
        sender.next_to_write(now, usize::MAX, blocks, &mut hand);
        assert_eq!(hand.len(), blocks);
        sender.handle(now, Event::Written { blocks });
        sender.handle(now, Event::Fin);
        while sender.next_command().is_some() {}
    });
}

fn journalled(live: &Fake) -> u64 {
    live.of_sender(|sender| sender.books().journalled)
}

fn fits(world: &World) -> bool {
    let (have, owed) = world.sums("raw", RAW);
    have == owed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journalled_block_is_on_disk_not_lent_and_settled_with_its_receipt() {
    let (disk, witness, live) = fresh();
    let world = World::start(Arc::clone(&live), memory(&disk, &witness, &Steps::default()), AMPLE);
    offer(&live, 4);
    world.handle.wake();
    world.until("all are journalled", || journalled(&live) == 20).await;
    let lane = world.status().await.lanes[0].clone();
    assert_eq!((lane.destination.as_str(), lane.pending_points, lane.held_points), (RAW, 20, 20));
    let borrower = link(&world);
    assert!(borrower.lease(0, 1_000).await.is_empty(), "the live path has them");
    receipt(&live, 3);
    world.until("three are settled", || world.handle.ledger_of("raw").settled == 15).await;
    assert!(borrower.lease(0, 1_000).await.is_empty(), "the live path has the fourth");
    let page = Page { lane: 0, from: 0, limit: 10 };
    let Ok(SpillAnswer::Records(page)) = world.ask(SpillRequest::Records(page)).await else { panic!("no page") };
    assert_eq!(page.records.iter().map(|record| record.state.as_str()).collect::<Vec<_>>(), ["held"]);
    let everything = SpillDiscard { force: true, ..SpillDiscard::default() };
    match world.ask(SpillRequest::Discard(everything)).await {
        Ok(SpillAnswer::Loss(loss)) => assert_eq!(loss.points, 0, "what the live path has is not given up"),
        other => panic!("no answer: {other:?}"),
    }
    world.until("the books fit", || fits(&world)).await;
    world.stop().await;
}

/// As a kill leaves it: the next process has no sender that holds anything.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_journalled_and_not_confirmed_is_lent_by_the_next_process() {
    let (disk, witness, live) = fresh();
    let world = World::start(Arc::clone(&live), memory(&disk, &witness, &Steps::default()), AMPLE);
    offer(&live, 4);
    world.handle.wake();
    world.until("all are journalled", || journalled(&live) == 20).await;
    receipt(&live, 1);
    world.until("one is settled", || world.handle.ledger_of("raw").settled == 5).await;
    world.stop().await;
    disk.crash();
    let world = World::start(Arc::new(Fake::with_sender()), memory(&disk, &witness, &Steps::default()), AMPLE);
    world.until("it is ready", || world.handle.able()).await;
    let borrower = link(&world);
    let mut lent: Vec<u64> = Vec::new();
    // A spill that is being opened again, for its thread was taken for hung, lends nothing.
    while lent.is_empty() {
        lent = borrower.lease(0, 1_000).await.iter().map(|(ticket, _)| ticket.ordinal).collect();
    }
    assert_eq!(lent, [1, 2, 3]);
    assert_eq!(world.handle.ledger_of("raw").carried, 15);
    world.stop().await;
}

/// The life of the thread ends at its 1st, 2nd, 3rd .. step while blocks come and get their receipts.
#[tokio::test(flavor = "multi_thread")]
async fn a_life_may_end_at_any_step_of_a_journal() {
    // With a race, the receipts come while the journal is being written.
    for (races, steps_min) in [(false, 16), (true, 8)] {
        let mut at_step = 1;
        while !end_at_step(at_step, races).await {
            at_step += 1;
        }
        assert!(at_step > steps_min, "only {at_step} steps");
    }
}

/// True: there were fewer steps.
async fn end_at_step(at_step: u64, races: bool) -> bool {
    let (disk, witness, live) = fresh();
    let steps = live.steps.clone();
    let world = World::start(Arc::clone(&live), memory(&disk, &witness, &steps), AMPLE);
    world.until("it is ready", || world.handle.able()).await;
    offer(&live, 3);
    steps.arm(at_step);
    world.handle.wake();
    if !races {
        world.until("the first are journalled", || journalled(&live) == 15).await;
    }
    offer(&live, 3);
    receipt(&live, 3);
    world.until("what is held is journalled", || journalled(&live) == 15).await;
    let borrower = link(&world);
    let mut lent = borrower.lease(0, 1_000).await;
    world.status().await;
    let had_fewer_steps = steps.armed();
    steps.arm(0);
    world.until("it is ready again", || world.handle.able()).await;
    world.until("the books fit", || fits(&world)).await;
    let lane = world.status().await.lanes.iter().find(|lane| lane.destination == RAW).cloned().expect("a lane");
    assert_eq!(lane.held_points, 15, "step {at_step}: {lane:?}");
    // A settling that was lost comes again by a replay.
    assert!((15..=30).contains(&lane.pending_points), "step {at_step}: {lane:?}");
    lent.extend(borrower.lease(lane.lane, 1_000).await);
    for (_, lines) in lent {
        let is_held = [b"raw.3.", b"raw.4.", b"raw.5."].iter().any(|name| lines.starts_with(*name));
        assert!(!is_held, "step {at_step}: {} is lent and held", lines.escape_ascii());
    }
    receipt(&live, 3);
    world.until("all are off its hands", || journalled(&live) == 0).await;
    world.until("the books fit at last", || fits(&world)).await;
    world.stop().await;
    had_fewer_steps
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_has_each_block_once_and_the_books_fit() {
    for (fault, plan) in store_faults() {
        let (disk, witness, live) = fresh();
        let world = World::start(Arc::clone(&live), memory(&disk, &witness, &Steps::default()), AMPLE);
        world.until("it is ready", || world.handle.able()).await;
        disk.set_faults(plan);
        offer(&live, 4);
        world.handle.wake();
        world.until("all are journalled", || journalled(&live) == 20).await;
        world.until("it is ready again", || world.handle.able()).await;
        let lane = world.status().await.lanes[0].clone();
        assert_eq!((lane.spilled_points, lane.pending_points), (20, 20), "{fault}");
        world.until("the books fit", || fits(&world)).await;
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_is_confirmed_while_its_store_fails_is_settled_when_it_is_found() {
    let (disk, witness, live) = fresh();
    let world = World::start(Arc::clone(&live), memory(&disk, &witness, &Steps::default()), AMPLE);
    world.until("it is ready", || world.handle.able()).await;
    disk.set_faults(FaultPlan::new().fail_sync(1, Fault::Io { applied: true }));
    offer(&live, 2);
    world.handle.wake();
    world.until("it has failed", || !world.handle.able() || journalled(&live) == 10).await;
    receipt(&live, 2);
    world.until("it is ready again", || world.handle.able()).await;
    world.until("everything is settled", || world.handle.ledger_of("raw").pending == 0 && fits(&world)).await;
    assert_eq!(live.of_sender(|sender| sender.books().delivered), 10);
    world.stop().await;
}
