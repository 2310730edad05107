//! Lives of the thread and of the process.

use super::*;

const AMPLE: u64 = 1 << 30;

fn fresh() -> (MemDisk, MemWitness, Arc<Fake>) {
    (MemDisk::new(AMPLE), MemWitness::default(), Arc::new(Fake::default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_is_told_when_it_is_on_disk_and_is_there_for_the_next_process() {
    let (disk, witness, live) = fresh();
    let world = World::start(Arc::clone(&live), memory(&disk, &witness, &Steps::default()), AMPLE);
    live.give((0..20).map(|seq| due(seq, 10, Why::Timeout)).chain((0..5).map(|n| block(n, 4))));
    world.handle.wake();
    world.until_told().await;
    world.balance(AGGREGATE, AGGREGATE);
    world.balance("carbon", "carbon/h:2003");
    assert_eq!(world.handle.ledger_of(AGGREGATE).pending, 200);
    assert_eq!(world.handle.ledger_of("carbon").pending, 20);
    assert_eq!(live.table().oldest, Some((Some(EPOCH), Some(UnixSeconds(1_000)))));
    world.stop().await;
    disk.crash();

    let world = World::start(Arc::new(Fake::default()), memory(&disk, &witness, &Steps::default()), AMPLE);
    let books = world.handle.ledger_of(AGGREGATE);
    world.until("the books are read", || world.handle.ledger_of("carbon").pending == 20).await;
    assert_eq!(world.handle.ledger_of(AGGREGATE).carried, 200, "{books:?}");
    world.balance(AGGREGATE, AGGREGATE);
    world.stop().await;
}

/// The life of the thread ends at its 1st, 2nd, 3rd .. step, until there are no more steps: nothing is lost, and nothing
/// is there twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_life_may_end_at_any_step() {
    for at_step in 1.. {
        let (disk, witness, _) = fresh();
        let live = Arc::new(Fake::default());
        let steps = live.steps.clone();
        let world = World::start(Arc::clone(&live), memory(&disk, &witness, &steps), AMPLE);
        world.until("it is ready", || world.handle.able()).await;
        steps.arm(at_step);
        live.give((0..8).map(|seq| due(seq, 10, Why::Timeout)).chain((0..4).map(|n| block(n, 5))));
        live.table().durable.insert(batch(3, 1, 1).id());
        world.handle.wake();
        world.until_told().await;
        let borrower = link(&world);
        let lent = borrower.lease(0, 1_000).await;
        // A lease and its Done may both be forgotten by a life that ends: then they come again.
        borrower.done(Outcome::Delivered, lent.iter().map(|(ticket, _)| *ticket).take(3).collect());
        let had_fewer_steps = steps.armed();
        steps.arm(0);
        world.until("it is ready again", || world.handle.able()).await;
        let status = world.status().await;
        let lane = status.lanes.iter().find(|lane| lane.destination == AGGREGATE).expect("a lane");
        assert_eq!(lane.spilled_points, 80, "step {at_step}: every batch is there once");
        let blocks = status.lanes.iter().find(|lane| lane.destination == "carbon/h:2003").expect("a lane");
        assert_eq!((blocks.spilled_points, blocks.pending_points), (20, 20), "step {at_step}");
        let fits = |destination, lane| {
            let (have, owed) = world.sums(destination, lane);
            have == owed
        };
        world.until("the books fit", || fits(AGGREGATE, AGGREGATE) && fits("carbon", "carbon/h:2003")).await;
        world.stop().await;
        if had_fewer_steps {
            assert!(at_step > 20, "only {at_step} steps");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_is_opened_again_and_nothing_is_lost() {
    for (fault, plan) in store_faults() {
        let (disk, witness, live) = fresh();
        let world = World::start(Arc::clone(&live), memory(&disk, &witness, &Steps::default()), AMPLE);
        world.until("it is ready", || world.handle.able()).await;
        disk.set_faults(plan);
        live.give((0..10).map(|seq| due(seq, 10, Why::Timeout)).chain((0..3).map(|n| block(n, 5))));
        world.handle.wake();
        world.until_told().await;
        world.until("it is ready again", || world.handle.able()).await;
        let status = world.status().await;
        assert_eq!(status.lanes[0].pending_points, 100, "{fault}");
        world.balance(AGGREGATE, AGGREGATE);
        world.balance("carbon", "carbon/h:2003");
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spill_takes_nothing_says_so_and_frees_itself() {
    let (disk, witness, live) = fresh();
    let quota = 2 << 20;
    let world = World::start(Arc::clone(&live), memory(&disk, &witness, &Steps::default()), quota);
    // Before it is open it takes nothing, either, which is not being full.
    world.until("it is ready", || world.handle.able()).await;
    let mut seq = 0;
    while world.handle.mode().mode != Mode::Quota {
        assert!(seq < 20_000, "never full");
        live.give((seq..seq + 20).map(|seq| due(seq, 4_000, Why::Memory)));
        seq += 20;
        world.handle.wake();
        world.until("it is told, or full", || live.is_empty() || !world.handle.able()).await;
    }
    assert!(world.handle.mode().detail.contains("2097152"), "{:?}", world.handle.mode());
    assert!(!live.table().able);
    world.balance(AGGREGATE, AGGREGATE);
    let borrower = link(&world);
    // Nothing lent is no sign that nothing is left: a spill that is being opened again lends nothing, either.
    while !world.handle.able() {
        let lent: Vec<Ticket> = borrower.lease(0, 1_000_000).await.into_iter().map(|(ticket, _)| ticket).collect();
        borrower.done(Outcome::Delivered, lent);
    }
    world.until_told().await;
    world.balance(AGGREGATE, AGGREGATE);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_settled_released_and_end_with_their_link() {
    let (disk, witness, live) = fresh();
    let world = World::start(Arc::clone(&live), memory(&disk, &witness, &Steps::default()), AMPLE);
    live.give((0..10).map(|seq| due(seq, 10, Why::Timeout)));
    world.handle.wake();
    world.until_told().await;
    let first = link(&world);
    let lent = first.lease(0, 40).await;
    assert_eq!(lent.len(), 4);
    assert_eq!(Batch::decode(lent[2].1.clone()).expect("a batch").id(), batch(2, 1, 1).id());
    let second = link(&world);
    assert_eq!(second.lease(0, 1_000).await.len(), 6, "what is lent is not lent again");
    first.done(Outcome::Delivered, vec![lent[0].0]);
    first.done(Outcome::Released, vec![lent[1].0]);
    first.done(Outcome::TooOld, vec![lent[2].0]);
    let books = || world.handle.ledger_of(AGGREGATE);
    world.until("it is settled", || books().settled == 10 && !books().dropped.is_empty()).await;
    assert_eq!(books().dropped, BTreeMap::from([("too_old", 10)]));
    let again: Vec<u64> = second.lease(0, 1_000).await.iter().map(|(ticket, _)| ticket.ordinal).collect();
    assert_eq!(again, [1], "what was released is lent again");
    world.handle.link_down(first.link);
    let again: Vec<u64> = second.lease(0, 1_000).await.iter().map(|(ticket, _)| ticket.ordinal).collect();
    assert_eq!(again, [3], "what a lost link had is lent again");
    world.balance(AGGREGATE, AGGREGATE);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_is_not_lent_while_the_live_path_has_it_and_goes_when_it_is_durable() {
    let (disk, witness, live) = fresh();
    let world = World::start(Arc::clone(&live), memory(&disk, &witness, &Steps::default()), AMPLE);
    live.table().held.insert(batch(0, 1, 1).id());
    live.give([due(0, 10, Why::Journal), due(1, 10, Why::Journal)]);
    world.handle.wake();
    world.until_told().await;
    assert_eq!(world.status().await.lanes[0].held_points, 10);
    let borrower = link(&world);
    let lent: Vec<u64> = borrower.lease(0, 1_000).await.iter().map(|(ticket, _)| ticket.ordinal).collect();
    assert_eq!(lent, [1]);
    live.table().settled.push(Ticket { lane: 0, ordinal: 0 });
    world.until("it is settled", || world.handle.ledger_of(AGGREGATE).settled == 10).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_finds_everything_that_was_told() {
    let (disk, witness, live) = fresh();
    let world = World::start(Arc::clone(&live), memory(&disk, &witness, &Steps::default()), AMPLE);
    live.give((0..50).map(|seq| due(seq, 10, Why::NoPeer)));
    world.handle.wake();
    world.until("some is told", || live.table().told.len() > 10).await;
    // The disk as a power cut leaves it at this moment: only what is synced.
    world.until_told().await;
    let told = live.spilled_points(AGGREGATE);
    world.stop().await;
    disk.crash();
    let world = World::start(Arc::new(Fake::default()), memory(&disk, &witness, &Steps::default()), AMPLE);
    world.until("it is ready", || world.handle.able()).await;
    assert!(world.status().await.lanes[0].pending_points >= told);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spill_of_a_newer_program_is_refused_untouched() {
    let (disk, witness, live) = fresh();
    let mut batch = WriteBatch::new();
    batch.put(b"v", b"\x00\x09spillway 7.0");
    let mut store = disk.open();
    store.write(&batch).expect("writes");
    let clock = Clock::new();
    let supervisor = Supervisor::new("relay-1", clock, RestartPolicy::default()).expect("a supervisor");
    let settings = Settings {
        node: "relay-1".into(),
        sender: SENDER,
        epoch: EPOCH,
        path: "/data/spill".into(),
        quota_bytes: AMPLE,
        sync_every: None,
        journal: false,
    };
    let handle = Arc::new(Handle::new(clock.unix()));
    let disk_for = memory(&disk, &witness, &Steps::default());
    let refused = start(&supervisor, settings, handle, live, disk_for, clock).expect_err("newer");
    let text = refused.to_string();
    assert!(text.contains("spillway 7.0") && text.contains("/data/spill"), "{text}");
    let mut keys = 0;
    let count = |_: &[u8], _: &[u8]| {
        keys += 1;
        ControlFlow::Continue(())
    };
    disk.open().scan(b"", store::END, &mut { count }).expect("scans");
    assert_eq!(keys, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_at_once_is_not_written_at_once() {
    let (disk, witness, live) = fresh();
    let steps = Steps::default();
    let world = World::start(Arc::clone(&live), memory(&disk, &witness, &steps), AMPLE);
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    live.give((0..40).map(|number| {
        let lines: Bytes = (0..50_000).map(|_| noise()).collect();
        let content = Content::Block { lines, points: 10, number };
        Due { destination: "carbon/h:2003".into(), why: Why::Memory, content }
    }));
    world.handle.wake();
    world.until_told().await;
    let lane = &world.status().await.lanes[0];
    assert_eq!((lane.pending_batches, lane.pending_bytes > 1_500_000), (40, true), "{lane:?}");
    let largest = steps.largest.load(Ordering::SeqCst);
    assert!((200_000..330_000).contains(&largest), "{largest} bytes in one write");
    world.stop().await;
}
