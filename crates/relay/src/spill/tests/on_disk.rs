//! Over RocksDB.

use std::fs;
use std::path::PathBuf;

use super::*;

/// A folder of its own, removed with all that is in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("spillway-relay-spill-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// RocksDB in `folder`, whatever path the settings say, with steps.
fn stepping(folder: &Folder, steps: &Steps) -> Disk {
    let real = rocksdb(1 << 30);
    let (path, steps) = (folder.0.join("spill"), steps.clone());
    let beside = path.clone();
    Disk {
        open: Box::new(move |_, now| {
            steps.step();
            let Opened { store, quarantined } = (real.open)(&path, now)?;
            let store = Stepping { inner: Boxed(store), steps: steps.clone() };
            Ok(Opened { store: Box::new(store), quarantined })
        }),
        witness: Box::new(move |_| (rocksdb(1 << 30).witness)(&beside)),
    }
}

#[derive(Debug)]
struct Boxed(Box<dyn Store>);

impl Store for Boxed {
    fn write(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        self.0.write(batch)
    }
    fn sync(&mut self) -> Result<(), StoreError> {
        self.0.sync()
    }
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.get(key)
    }
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.0.scan(from, to, visit)
    }
    fn salvage(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<Vec<Hole>, StoreError> {
        self.0.salvage(from, to, visit)
    }
    fn forget(&mut self, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        self.0.forget(from, to)
    }
    fn give_back(&mut self) -> Result<(), StoreError> {
        self.0.give_back()
    }
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }
}

/// A spill with thirty batches of 100 points, stopped in order.
async fn thirty_spilled() -> Folder {
    let folder = Folder::new();
    let live = Arc::new(Fake::default());
    let world = World::start(Arc::clone(&live), stepping(&folder, &Steps::default()), 1 << 30);
    live.give((0..30).map(|n| due(n, 100, Why::Timeout)));
    world.handle.wake();
    world.until_told().await;
    world.stop().await;
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_spilled_is_there_after_a_restart_and_nothing_is_twice() {
    let folder = Folder::new();
    for life in 0..3_u32 {
        let live = Arc::new(Fake::default());
        let world = World::start(Arc::clone(&live), stepping(&folder, &Steps::default()), 1 << 30);
        live.give((0..30).map(|n| due(life * 30 + n, 100, Why::Timeout)));
        world.handle.wake();
        world.until_told().await;
        let status = world.status().await;
        let lane = &status.lanes[0];
        let expected = u64::from(life + 1) * 3_000 - u64::from(life) * 500;
        assert_eq!((lane.pending_points, lane.gaps.len()), (expected, 0), "life {life}");
        let borrower = link(&world);
        let lent = borrower.lease(0, 500).await;
        borrower.done(Outcome::Delivered, lent.into_iter().map(|(ticket, _)| ticket).collect());
        world.until("it is settled", || world.handle.ledger_of(AGGREGATE).settled == 500).await;
        world.balance(AGGREGATE, AGGREGATE);
        world.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_that_panics_in_the_midst_leaves_a_store_that_its_successor_opens() {
    let folder = Folder::new();
    let live = Arc::new(Fake::default());
    let steps = live.steps.clone();
    let world = World::start(Arc::clone(&live), stepping(&folder, &steps), 1 << 30);
    for round in 0..12_u32 {
        world.until("it is ready", || world.handle.able()).await;
        steps.arm(u64::from(round) + 1);
        live.give((0..4).map(|n| due(round * 4 + n, 50, Why::Memory)));
        world.handle.wake();
        world.until_told().await;
        steps.arm(0);
    }
    world.until("it is ready", || world.handle.able()).await;
    assert_eq!(world.status().await.lanes[0].spilled_points, 12 * 4 * 50);
    world.balance(AGGREGATE, AGGREGATE);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_gone_is_counted_by_the_witness() {
    let folder = thirty_spilled().await;
    fs::remove_dir_all(folder.0.join("spill")).expect("removes");
    let world = World::start(Arc::new(Fake::default()), stepping(&folder, &Steps::default()), 1 << 30);
    world.until("it is ready", || world.handle.able()).await;
    world.until("the loss is counted", || world.handle.ledger_of(AGGREGATE).dropped.contains_key("corrupt")).await;
    let books = world.handle.ledger_of(AGGREGATE);
    assert_eq!((books.pending, books.dropped["corrupt"], books.carried), (0, 3_000, 3_000));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_removed_under_a_running_node_is_noticed_and_its_loss_is_exact() {
    let folder = Folder::new();
    let live = Arc::new(Fake::default());
    let path = folder.0.join("spill");
    let world = World::start_in(path.clone(), Arc::clone(&live), rocksdb(1 << 30), 1 << 30);
    live.give((0..30).map(|n| due(n, 100, Why::Timeout)));
    world.handle.wake();
    world.until_told().await;
    for entry in fs::read_dir(&folder.0).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { fs::remove_dir_all(path).expect("removes") } else { fs::remove_file(path).expect("removes") }
    }
    world.until("the loss is counted", || world.handle.ledger_of(AGGREGATE).dropped.contains_key("corrupt")).await;
    world.until("it is ready again", || world.handle.able()).await;
    live.give((30..40).map(|n| due(n, 100, Why::Timeout)));
    world.handle.wake();
    world.until_told().await;
    let books = world.handle.ledger_of(AGGREGATE);
    assert_eq!((books.pending, books.dropped["corrupt"]), (1_000, 3_000));
    world.balance(AGGREGATE, AGGREGATE);
    world.stop().await;
    assert!(path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_missing_at_the_start_is_a_gap_as_soon_as_the_lane_is_checked() {
    let folder = thirty_spilled().await;
    let Opened { mut store, .. } = (rocksdb(1 << 30).open)(&folder.0.join("spill"), UnixSeconds(1)).expect("opens");
    let mut harm = WriteBatch::new();
    for ordinal in [7, 8, 29] {
        harm.delete(&engine::spill::key(0, ordinal));
    }
    store.write(&harm).and_then(|()| store.sync()).expect("deletes");
    drop(store);
    let world = World::start(Arc::new(Fake::default()), stepping(&folder, &Steps::default()), 1 << 30);
    // The status says so itself while it does not know yet.
    let status = loop {
        let status = world.status().await;
        if status.mode == "ok" && !status.lanes[0].checking {
            break status;
        }
        assert_eq!(status.lanes[0].gaps, []);
    };
    let lane = &status.lanes[0];
    let gaps: Vec<(u64, u64, u64)> = lane.gaps.iter().map(|gap| (gap.from, gap.to, gap.points)).collect();
    assert_eq!((lane.pending_points, gaps), (2_700, vec![(7, 8, 200), (29, 29, 100)]));
    world.stop().await;
}
