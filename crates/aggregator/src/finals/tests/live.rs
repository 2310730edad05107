//! Shard and log as the threads they are, over a disk that fails.

use std::sync::Arc;
use std::time::Duration;

use engine::restart::RestartPolicy;
use node::rules::RuleBook;
use runtime::{Clock, Supervisor};
use store::{Fault, FaultPlan, MemDisk};

use super::*;
use crate::finals::disk::Opener;
use crate::finals::role::{Connection, Input};
use crate::finals::{CatchUp, FinalRole, Mode, Setup, run_log, run_shard};
use crate::partial_lock as lock;

const PATIENCE: Duration = Duration::from_secs(30);

/// A final node of one shard and one partition, without stores.
struct Live {
    role: Arc<FinalRole>,
    supervisor: Supervisor,
    link: Arc<Connection>,
}

impl Live {
    fn start(disk: &MemDisk, quota_bytes: u64) -> Live {
        let clock = Clock::new();
        let setup = Setup {
            forgotten: Arc::default(),
            node: "final-1".into(),
            clock,
            mine: vec![PARTITION],
            shards: 1,
            book: Arc::new(RuleBook::blank()),
            rings: Vec::new(),
            stores: Vec::new(),
            horizon: Duration::from_secs(u64::from(u32::MAX)),
            memory_bytes: 1 << 30,
            quota_bytes,
        };
        let disk = disk.clone();
        let open = Box::new(move || Ok((Box::new(disk.open()) as Box<dyn Store>, false, Vec::new())));
        let role = Arc::new(FinalRole::new(setup, Opener { open, witness: None }, CatchUp::unkept(1)));
        let supervisor = Supervisor::new("final-1", clock, RestartPolicy::default()).expect("a supervisor");
        let log = Arc::clone(&role);
        supervisor.spawn_thread("final.log", move |worker| run_log(&worker, &log));
        let shard = Arc::clone(&role);
        supervisor.spawn_thread("final.shard.0", move |worker| run_shard(&worker, &shard, 0));
        Live { role, supervisor, link: Arc::default() }
    }

    /// Sends a flush again and again, as a partial node does, until it is answered: "merged", or "included already" when
    /// a later copy is answered first in our eyes.
    async fn answer(&self, seq: u32) -> GroupReply {
        let mut answer = None;
        self.until("an answer", || {
            self.send(seq);
            answer = lock(&self.link.replies).pop();
            answer.is_some()
        })
        .await;
        answer.and_then(|reply| reply.groups.into_iter().next()).expect("one group")
    }

    fn send(&self, seq: u32) {
        self.role.give(0, Input::Flush { from: Arc::clone(&self.link), flush: flush(Lane::First, seq) });
    }

    async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let clock = self.role.setup.clock;
        let start = clock.now();
        while !holds() {
            assert!(clock.now().since(start) < PATIENCE, "never came: {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_disk_does_answers_wait_for_it_and_no_worker_dies() {
    let io = |applied| Fault::Io { applied };
    for (what, plan, mode) in [
        ("full", FaultPlan::new().fail_write(1, Fault::Full).fail_write(2, Fault::Full), Some(Mode::DiskFull)),
        ("busy", FaultPlan::new().fail_write(1, Fault::Busy), None),
        ("write lost", FaultPlan::new().fail_write(1, io(false)), None),
        ("write kept", FaultPlan::new().fail_write(1, io(true)), None),
        ("sync lost", FaultPlan::new().fail_sync(1, io(false)).fail_sync(2, io(false)), None),
        ("sync kept", FaultPlan::new().fail_sync(1, io(true)), None),
        ("sync full", FaultPlan::new().fail_sync(1, Fault::Full), None),
    ] {
        let disk = MemDisk::new(1 << 30);
        let live = Live::start(&disk, 1 << 30);
        disk.set_faults(plan);
        if let Some(mode) = mode {
            live.until("the mode", || {
                live.send(0);
                live.role.mode().0 == mode
            })
            .await;
        }
        let answer = live.answer(0).await;
        assert!(matches!(answer, GroupReply::Merged | GroupReply::Refused { .. }), "{what}: {answer:?}");
        live.until("the log to be well", || live.role.mode().0 == Mode::Ok).await;
        let workers = live.supervisor.workers();
        assert!(workers.iter().all(|worker| worker.restarts == 0), "{what}: {workers:?}");
        // Who was answered is safe.
        disk.crash();
        let (node, findings) = Node::on(disk, Vec::new());
        assert!(node.includes(0), "{what}");
        assert_eq!(findings, [], "{what}");
        live.supervisor.shutdown(PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_quota_flushes_are_put_off_and_old_windows_go_early() {
    let disk = MemDisk::new(1 << 30);
    let live = Live::start(&disk, 200); // less than one record of the log
    let answer = live.answer(0).await; // the store is empty yet
    assert!(matches!(answer, GroupReply::Merged | GroupReply::Refused { .. }), "{answer:?}");
    live.until("the mode", || live.role.mode().0 == Mode::Quota).await;
    let before = lock(&live.role.states[0]).put_off;
    (1..5).for_each(|seq| live.send(seq));
    live.until("four flushes to be put off", || lock(&live.role.states[0]).put_off >= before + 4).await;
    live.until("old windows to go early", || lock(&live.role.states[0]).sealed_early > 0).await;
    live.supervisor.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_at_its_quota_is_well_again_by_itself_when_old_windows_have_gone() {
    let disk = MemDisk::new(1 << 30);
    let live = Live::start(&disk, 6_000);
    let mut seq = 0;
    live.until("the quota", || {
        live.send(seq);
        seq += 1;
        live.role.mode().0 == Mode::Quota
    })
    .await;
    assert_eq!(live.role.worries().first().map(|worry| worry.part), Some("final.log"));
    live.until("the mode to be ok by itself", || live.role.mode().0 == Mode::Ok).await;
    assert!(lock(&live.role.states[0]).sealed_early > 0);
    assert_eq!(live.role.worries(), []);
    lock(&live.link.replies).clear();
    live.answer(seq + 1).await;
    live.supervisor.shutdown(PATIENCE).await;
}

/// As after an operator has lowered the quota: everything would be refused, and with it what frees space.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_far_beyond_its_quota_still_takes_what_frees_space() {
    let disk = MemDisk::new(1);
    let live = Live::start(&disk, 1 << 20);
    for seq in 0..3 {
        live.answer(seq).await;
    }
    assert_eq!(live.role.mode().0, Mode::Ok);
    live.supervisor.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_included_set_is_said_until_the_process_ends() {
    let live = Live::start(&MemDisk::new(1 << 20), 1 << 20);
    live.role.note_findings(PARTITION, &[Finding::Checkpoint]);
    assert_eq!(live.role.worries(), []);
    live.role.note_findings(PARTITION, &[Finding::IncludedLost]);
    live.answer(0).await;
    let worries = live.role.worries();
    assert_eq!(worries.iter().map(|worry| worry.part).collect::<Vec<_>>(), ["final.store"]);
    assert!(worries[0].why.contains("counted a second time"), "{worries:?}");
    live.role.set_mode(Mode::DiskFull, "no space");
    assert_eq!(live.role.worries()[0].part, "final.log", "the graver one first");
    live.supervisor.shutdown(PATIENCE).await;
}

#[test]
fn re_sends_stand_in_a_queue_of_their_own_behind_first_sends() {
    let setup = |role: &FinalRole| role.begin_shard(0, 1);
    let disk = MemDisk::new(1 << 20);
    let open = Box::new(move || Ok((Box::new(disk.open()) as Box<dyn Store>, false, Vec::new())));
    let role = FinalRole::new(
        Setup {
            forgotten: Arc::default(),
            node: "final-1".into(),
            clock: Clock::new(),
            mine: vec![PARTITION],
            shards: 1,
            book: Arc::new(RuleBook::blank()),
            rings: Vec::new(),
            stores: Vec::new(),
            horizon: Duration::from_secs(60),
            memory_bytes: 1 << 20,
            quota_bytes: 1 << 20,
        },
        Opener { open, witness: None },
        CatchUp::unkept(1),
    );
    let inputs = setup(&role);
    for lane in [Lane::Suspect, Lane::First, Lane::Suspect] {
        role.give(0, Input::Flush { from: Arc::default(), flush: flush(lane, 0) });
    }
    role.give(0, Input::Log);
    assert_eq!((inputs.first.len(), inputs.second.len()), (2, 2));
}
