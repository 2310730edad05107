use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::failpoints::{self, Action};

const PATIENCE: Duration = Duration::from_secs(30);

/// Restarts are quick, and the watchdog is long enough for a loaded machine.
fn policy() -> RestartPolicy {
    RestartPolicy { watchdog: Duration::from_millis(800), ..RestartPolicy::default() }
}

fn supervisor(node: &str, policy: RestartPolicy) -> Supervisor {
    Supervisor::new(node, Clock::new(), policy).unwrap()
}

/// Waits for something that must come, looking every few milliseconds.
#[track_caller]
fn until(what: &str, seen: impl Fn() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    let what = what.to_owned();
    async move {
        let clock = Clock::new();
        let start = clock.now();
        while !seen() {
            assert!(clock.now().since(start) < PATIENCE, "never came: {what} ({caller})");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn state(supervisor: &Supervisor, name: &str) -> WorkerState {
    supervisor.workers().into_iter().find(|worker| worker.name == name).unwrap()
}

/// What each life of a test's worker has done.
#[derive(Clone, Default)]
struct Lives {
    rounds: Arc<Mutex<Vec<u64>>>,
    started: Arc<AtomicUsize>,
}

impl Lives {
    fn note(&self, generation: u64) {
        self.rounds.lock().unwrap().push(generation);
    }

    fn seen(&self, generation: u64) -> bool {
        self.rounds.lock().unwrap().contains(&generation)
    }

    fn started(&self) -> usize {
        self.started.load(Ordering::Acquire)
    }
}

fn thread_that_works(supervisor: &Supervisor, name: &str, lives: &Lives) {
    let lives = lives.clone();
    supervisor.spawn_thread(name, move |worker| {
        lives.started.fetch_add(1, Ordering::AcqRel);
        while !worker.should_stop() {
            worker.failpoint("loop")?;
            if worker.is_current() {
                lives.note(worker.generation());
            }
            worker.beat();
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    });
}

fn task_that_works(supervisor: &Supervisor, name: &str, lives: &Lives) {
    let lives = lives.clone();
    supervisor.spawn_task(name, move |worker| {
        let lives = lives.clone();
        async move {
            lives.started.fetch_add(1, Ordering::AcqRel);
            while !worker.should_stop() {
                worker.failpoint_async("loop").await?;
                lives.note(worker.generation());
                worker.beat();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok(())
        }
    });
}

fn isolated_that_works(supervisor: &Supervisor, name: &str, lives: &Lives) {
    let lives = lives.clone();
    supervisor.spawn_isolated(name, move |worker| {
        let lives = lives.clone();
        async move {
            lives.started.fetch_add(1, Ordering::AcqRel);
            while !worker.should_stop() {
                worker.failpoint("loop")?;
                lives.note(worker.generation());
                worker.beat();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok(())
        }
    });
}

/// Injects one fault into a working worker; it must start again once, and its neighbour must not notice.
async fn check(node: &str, spawn: fn(&Supervisor, &str, &Lives), action: Action, hangs: u64, error: &str) {
    let supervisor = supervisor(node, policy());
    let (lives, neighbour) = (Lives::default(), Lives::default());
    spawn(&supervisor, "victim", &lives);
    spawn(&supervisor, "neighbour", &neighbour);
    until("both work", || lives.seen(1) && neighbour.seen(1)).await;
    failpoints::set(&format!("{node}/victim"), action, 1).unwrap();
    until("second life works", || lives.seen(2)).await;

    let victim = state(&supervisor, "victim");
    assert_eq!((victim.phase, victim.restarts, victim.hangs), (WorkerPhase::Running, 1, hangs), "{node}");
    let said = victim.last_error.unwrap();
    assert!(said.starts_with(error), "{node}: {said}");
    let neighbour_state = state(&supervisor, "neighbour");
    assert_eq!((neighbour_state.restarts, neighbour_state.last_error), (0, None), "{node}");
    assert_eq!(neighbour.started(), 1, "{node}");
    assert_eq!(supervisor.escalation(), None, "{node}");
    assert!(supervisor.is_healthy(), "{node}");
    assert_eq!(supervisor.shutdown(PATIENCE).await, Vec::<String>::new(), "{node}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slowness_is_no_failure() {
    for (node, spawn) in
        [("slow-thread", thread_that_works as fn(&Supervisor, &str, &Lives)), ("slow-task", task_that_works)]
    {
        let supervisor = supervisor(node, policy());
        let lives = Lives::default();
        failpoints::set(&format!("{node}/victim"), Action::Slow, 1).unwrap();
        let start = Clock::new();
        let before = start.now();
        spawn(&supervisor, "victim", &lives);
        until("it works", || lives.seen(1)).await;
        assert!(start.now().since(before) >= Duration::from_millis(250), "{node}");
        assert_eq!(state(&supervisor, "victim").restarts, 0, "{node}");
        supervisor.shutdown(PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn panic_restarts_that_worker_alone() {
    check("panic-thread", thread_that_works, Action::Panic, 0, "panic: failpoint loop").await;
    check("panic-task", task_that_works, Action::Panic, 0, "panic: failpoint loop").await;
    check("panic-isolated", isolated_that_works, Action::Panic, 0, "panic: failpoint loop").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn error_restarts_that_worker_alone() {
    check("error-thread", thread_that_works, Action::Error, 0, "error: failpoint loop").await;
    check("error-task", task_that_works, Action::Error, 0, "error: failpoint loop").await;
    check("error-isolated", isolated_that_works, Action::Error, 0, "error: failpoint loop").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hang_restarts_that_worker_alone() {
    check("hang-thread", thread_that_works, Action::Hang, 1, "hang: no heartbeat for").await;
    check("hang-task", task_that_works, Action::Hang, 1, "hang: no heartbeat for").await;
    check("hang-isolated", isolated_that_works, Action::Hang, 1, "hang: no heartbeat for").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_that_ends_unasked_has_failed() {
    let supervisor = supervisor("ends", policy());
    let lives = Lives::default();
    let seen = lives.clone();
    supervisor.spawn_task("quitter", move |worker| {
        let lives = seen.clone();
        async move {
            lives.note(worker.generation());
            if worker.generation() > 1 {
                worker.idle(worker.stopping().cancelled()).await;
            }
            Ok(())
        }
    });
    until("second life", || lives.seen(2)).await;
    let quitter = state(&supervisor, "quitter");
    assert_eq!(quitter.last_error.as_deref(), Some("error: ended before it was asked to stop"));
    assert_eq!(supervisor.shutdown(PATIENCE).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_failures_escalate_with_the_first_one_as_root_cause() {
    let supervisor = supervisor("escalates", RestartPolicy { restarts: 2, ..policy() });
    let neighbour = Lives::default();
    thread_that_works(&supervisor, "neighbour", &neighbour);
    let starts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&starts);
    supervisor.spawn_thread("broken", move |worker| {
        counted.fetch_add(1, Ordering::AcqRel);
        match worker.generation() {
            1 => Err(WorkerError::new("disk gone")),
            2 => panic!("second"),
            _ => Err(WorkerError::new("last")),
        }
    });
    let escalation = supervisor.failed().await;
    let expected = Escalation {
        worker: "broken".to_owned(),
        error: "last".to_owned(),
        root_cause: "broken error: disk gone".to_owned(),
    };
    assert_eq!(escalation, expected);
    assert!(!supervisor.is_healthy(), "the service manager is not to hear that it is alive");
    assert_eq!(starts.load(Ordering::Acquire), 3);
    assert_eq!(state(&supervisor, "broken").phase, WorkerPhase::Escalated);
    assert_eq!(state(&supervisor, "neighbour").phase, WorkerPhase::Running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zombie_is_fenced_and_its_heart_beats_for_nobody() {
    let supervisor = supervisor("zombie", policy());
    // What a fenced life may still do is nothing; `merged` gets what each life believes it may do.
    let merged = Lives::default();
    let zombie_beats = Arc::new(AtomicUsize::new(0));
    let (notes, beats) = (merged.clone(), Arc::clone(&zombie_beats));
    supervisor.spawn_thread("shard", move |worker| {
        while !worker.stopping().is_cancelled() {
            if worker.generation() <= 2 && worker.is_current() {
                worker.failpoint("loop")?;
            }
            worker.beat();
            if worker.is_current() {
                notes.note(worker.generation());
            } else {
                beats.fetch_add(1, Ordering::AcqRel);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    });
    until("first life", || merged.seen(1)).await;
    // The first life hangs and wakes up as a zombie that beats for ever; the second must be seen to hang all the same.
    failpoints::set("zombie/shard", Action::Hang, 2).unwrap();
    until("third life", || merged.seen(3)).await;
    until("zombies woke up", || zombie_beats.load(Ordering::Acquire) > 10).await;
    let shard = state(&supervisor, "shard");
    assert_eq!((shard.restarts, shard.hangs, shard.abandoned), (2, 2, 2));

    let order = merged.rounds.lock().unwrap().clone();
    assert!(order.is_sorted(), "a fenced life worked after its successor had begun");
    let lives: BTreeSet<u64> = order.into_iter().collect();
    assert!(lives.contains(&1) && lives.contains(&3), "{lives:?}");
    assert_eq!(supervisor.shutdown(PATIENCE).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn task_that_blocks_its_thread_gets_a_successor_at_once() {
    let supervisor = supervisor("blocks", policy());
    let (lives, release) = (Lives::default(), Arc::new(AtomicBool::new(false)));
    let (notes, released) = (lives.clone(), Arc::clone(&release));
    supervisor.spawn_task("blocker", move |worker| {
        let (lives, release) = (notes.clone(), Arc::clone(&released));
        async move {
            lives.note(worker.generation());
            while worker.generation() == 1 && !release.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(5));
            }
            worker.idle(worker.stopping().cancelled()).await;
            Ok(())
        }
    });
    until("second life", || lives.seen(2)).await;
    assert_eq!(state(&supervisor, "blocker").abandoned, 1, "the first still blocks");
    release.store(true, Ordering::Release);
    until("first life gone", || state(&supervisor, "blocker").abandoned == 0).await;
    assert_eq!(supervisor.shutdown(PATIENCE).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_a_few_lives_left_behind_escalate() {
    let policy = RestartPolicy { restarts: 1000, watchdog: Duration::from_millis(60), ..policy() };
    let supervisor = supervisor("left-behind", policy);
    let release = Arc::new(AtomicBool::new(false));
    let released = Arc::clone(&release);
    supervisor.spawn_thread("stuck", move |_worker| {
        while !released.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    });
    let escalation = supervisor.failed().await;
    release.store(true, Ordering::Release);
    assert_eq!(escalation.worker, "stuck");
    let stuck = state(&supervisor, "stuck");
    assert_eq!((stuck.phase, stuck.hangs), (WorkerPhase::Escalated, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn constructor_that_panics_is_asked_again() {
    let supervisor = supervisor("constructor", policy());
    let lives = Lives::default();
    let notes = lives.clone();
    let mut asked = 0;
    supervisor.spawn_task("made", move |worker| {
        asked += 1;
        assert!(asked > 1, "not the first time");
        notes.note(worker.generation());
        async move {
            worker.idle(worker.stopping().cancelled()).await;
            Ok(())
        }
    });
    until("second life", || lives.seen(2)).await;
    assert_eq!(state(&supervisor, "made").last_error.as_deref(), Some("panic: not the first time"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_worker_is_not_hung() {
    let supervisor = supervisor("idle", RestartPolicy { watchdog: Duration::from_millis(400), ..policy() });
    supervisor.spawn_task("idler", |worker| async move {
        worker.idle(worker.stopping().cancelled()).await;
        Ok(())
    });
    let clock = Clock::new();
    let start = clock.now();
    until("three watchdogs pass", move || clock.now().since(start) > Duration::from_millis(1200)).await;
    let idler = state(&supervisor, "idler");
    assert_eq!((idler.phase, idler.hangs), (WorkerPhase::Running, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_goes_from_prefix_to_prefix_and_names_who_is_late() {
    let supervisor = supervisor("stops", RestartPolicy { watchdog: PATIENCE, ..policy() });
    let lives = Lives::default();
    thread_that_works(&supervisor, "relay.listener", &lives);
    thread_that_works(&supervisor, "relay.router.0", &lives);
    let release = Arc::new(AtomicBool::new(false));
    let released = Arc::clone(&release);
    supervisor.spawn_thread("store.stubborn", move |worker| {
        while !released.load(Ordering::Acquire) {
            worker.beat();
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    });
    supervisor.spawn_draining_connection("store.connection", |_stop| std::future::pending());

    assert_eq!(supervisor.stop_some("relay.listener", PATIENCE).await, Vec::<String>::new());
    assert_eq!(state(&supervisor, "relay.listener").phase, WorkerPhase::Stopped);
    assert_eq!(state(&supervisor, "relay.router.0").phase, WorkerPhase::Running);
    let late = supervisor.shutdown(Duration::from_millis(50)).await;
    assert!(late.contains(&"store.stubborn".to_owned()), "{late:?}");
    assert!(late.contains(&"store.connection x1".to_owned()), "{late:?}");
    release.store(true, Ordering::Release);
    until("connection dropped", || supervisor.connections().iter().all(|group| group.live == 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_that_fails_while_it_drains_starts_again_and_drains() {
    let supervisor = supervisor("drains", policy());
    let (queue_tx, queue_rx) = crate::queue::byte_queue::<u32>("drained", 1000);
    let drained = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&drained);
    supervisor.spawn_thread("drainer", move |worker| {
        while !worker.stopping().is_cancelled() {
            worker.beat();
            std::thread::sleep(Duration::from_millis(2));
        }
        while let Some(item) = queue_rx.try_recv() {
            assert!(worker.generation() > 1 || *item < 5, "fails in the middle");
            count.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    });
    for item in 0..10 {
        queue_tx.send(item, 1).await.unwrap();
    }
    assert_eq!(supervisor.shutdown(PATIENCE).await, Vec::<String>::new());
    // Item 5 was in hand when the worker panicked: its owner gives it back by protocol, not the queue.
    assert_eq!(drained.load(Ordering::Acquire), 9);
    assert_eq!(state(&supervisor, "drainer").restarts, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn panic_in_a_connection_is_counted_and_ends_only_that_one() {
    let supervisor = supervisor("connections", policy());
    let (survivor_tx, survivor_rx) = tokio::sync::oneshot::channel::<()>();
    supervisor.spawn_connection("client", async { panic!("bad client") });
    supervisor.spawn_connection("client", async move {
        // Held until the connection is dropped.
        let _held = survivor_tx;
        std::future::pending().await
    });
    supervisor.spawn_connection("client", async {});
    let expected = ConnectionCount { name: "client".to_owned(), live: 1, opened: 3, panics: 1 };
    until("two have ended", || supervisor.connections() == [expected.clone()]).await;
    assert_eq!(supervisor.escalation(), None);
    supervisor.stop();
    survivor_rx.await.unwrap_err();
    assert_eq!(supervisor.shutdown(PATIENCE).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_connection_hands_over_what_it_holds() {
    let supervisor = supervisor("draining", policy());
    let (handed_tx, handed_rx) = tokio::sync::oneshot::channel();
    supervisor.spawn_draining_connection("client", |stop| async move {
        stop.cancelled().await;
        tokio::task::yield_now().await;
        handed_tx.send("last lines").unwrap();
    });
    assert_eq!(supervisor.shutdown(PATIENCE).await, Vec::<String>::new());
    assert_eq!(handed_rx.await, Ok("last lines"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isolated_worker_answers_while_the_main_runtime_is_blocked() {
    let supervisor = supervisor("isolated", RestartPolicy { watchdog: PATIENCE, ..policy() });
    let lives = Lives::default();
    let notes = lives.clone();
    supervisor.spawn_isolated("aside", move |worker| {
        let lives = notes.clone();
        async move {
            while !worker.should_stop() {
                worker.beat();
                lives.note(worker.generation());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(())
        }
    });
    until("works", || lives.seen(1)).await;
    let release = Arc::new(AtomicBool::new(false));
    for _ in 0..2 {
        let released = Arc::clone(&release);
        supervisor.spawn_connection("blocker", async move {
            while !released.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }
    // This test's own future runs on the caller's thread, not on the blocked workers; no timer fires meanwhile.
    let rounds = || lives.rounds.lock().unwrap().len();
    let before = rounds();
    let clock = Clock::new();
    let start = clock.now();
    while rounds() < before + 20 {
        assert!(clock.now().since(start) < PATIENCE, "the isolated worker stands still");
        std::thread::sleep(Duration::from_millis(1));
    }
    release.store(true, Ordering::Release);
    assert_eq!(supervisor.shutdown(PATIENCE).await, Vec::<String>::new());
}

#[test]
fn process_aborts_when_the_monitor_dies() {
    const CHILD: &str = "SPILLWAY_TEST_MONITOR_DIES";
    if std::env::var_os(CHILD).is_some() {
        monitor::die();
        return;
    }
    let myself = std::env::current_exe().unwrap();
    let child = std::process::Command::new(myself)
        .args(["--exact", "supervisor::tests::process_aborts_when_the_monitor_dies"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert_eq!(child.status.signal(), Some(6), "SIGABRT: {child:?}");
}

#[test]
fn error_keeps_the_words_of_its_sources() {
    let source = io::Error::other("disk full");
    let error = crate::identity::IdentityError::Io { action: "write", path: "x".into(), source };
    let said = WorkerError::from(error).to_string();
    assert!(said.starts_with("write x") && said.ends_with(": disk full"), "{said}");
}

#[test]
fn supervisor_outside_a_runtime_is_an_error() {
    assert!(Supervisor::new("nowhere", Clock::new(), policy()).is_err());
}
