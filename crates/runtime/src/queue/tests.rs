use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn credit_comes_back_when_the_receiver_drops_the_item() {
    let (tx, rx) = byte_queue("lines", 100);
    tx.try_send("a", 60).unwrap();
    assert!(matches!(tx.try_send("b", 60), Err(TrySendError::Full("b"))));
    tx.try_send("c", 40).unwrap();
    assert_eq!((tx.probe().queued_bytes(), rx.len()), (100, 2));

    let in_hand = rx.recv_timeout(PATIENCE).unwrap();
    assert_eq!((*in_hand, in_hand.bytes()), ("a", 60));
    assert!(matches!(tx.try_send("b", 60), Err(TrySendError::Full("b"))), "what is in hand still counts");
    drop(in_hand);
    tx.try_send("b", 60).unwrap();
    assert_eq!(rx.recv_timeout(PATIENCE).unwrap().into_item(), "c");
    assert_eq!(rx.try_recv().unwrap().into_item(), "b");
    assert_eq!((rx.probe().queued_bytes(), rx.is_empty()), (0, true));
    assert!(rx.recv_timeout(Duration::ZERO).is_none());
}

#[test]
fn item_larger_than_the_limit_passes_alone() {
    let (tx, rx) = byte_queue("lines", 100);
    tx.try_send('x', 1).unwrap();
    assert!(matches!(tx.try_send('y', 1_000_000), Err(TrySendError::Full('y'))));
    drop(rx.try_recv().unwrap());
    tx.try_send('y', 1_000_000).unwrap();
    assert_eq!(tx.probe().queued_bytes(), 1_000_000);
    assert!(matches!(tx.try_send('z', 1), Err(TrySendError::Full('z'))));
    drop(rx.try_recv().unwrap());
    tx.try_send('z', 0).unwrap();
}

#[test]
fn empty_items_are_bounded_too() {
    let (tx, _rx) = byte_queue("lines", 3);
    let taken = (0..10).filter(|_| tx.try_send((), 0).is_ok()).count();
    assert_eq!(taken, 3);
}

#[tokio::test]
async fn waiting_senders_are_served_in_their_order() {
    let (tx, rx) = byte_queue("lines", 10);
    tx.send(0, 10).await.unwrap();
    let (large, small) = (tx.clone(), tx.clone());
    let mut large = std::pin::pin!(large.send(1, 10));
    let mut small = std::pin::pin!(small.send(2, 1));
    tokio::select! {
        biased;
        _ = &mut large => panic!("no room yet"),
        _ = &mut small => panic!("overtook the large one"),
        () = std::future::ready(()) => {}
    }
    drop(rx.try_recv().unwrap());
    large.await.unwrap();
    drop(rx.try_recv().unwrap());
    small.await.unwrap();
    assert_eq!(rx.try_recv().unwrap().into_item(), 2);
}

#[tokio::test]
async fn dropped_wait_leaves_no_trace() {
    let (tx, rx) = byte_queue("lines", 10);
    tx.send(0, 10).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(10), tx.reserve(5)).await.is_err());
    drop(rx.try_recv().unwrap());
    tx.reserve(10).await.unwrap().send(1).unwrap();
    assert_eq!(rx.try_recv().unwrap().into_item(), 1);
    drop(tx.reserve(10).await.unwrap());
    tx.try_send(2, 10).unwrap();
}

#[tokio::test]
async fn queue_without_a_receiver_says_so_also_to_who_waits() {
    let (tx, rx) = byte_queue("lines", 10);
    tx.send(0, 10).await.unwrap();
    let mut waiting = std::pin::pin!(tx.send(1, 5));
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("no room yet"),
        () = std::future::ready(()) => {}
    }
    drop(rx);
    assert_eq!(tokio::time::timeout(PATIENCE, waiting).await, Ok(Err(Closed("lines"))));
    assert!(matches!(tx.try_send(2, 1), Err(TrySendError::Closed(2))));
    assert_eq!((tx.probe().queued_bytes(), tx.probe().oldest_age()), (0, Duration::ZERO));
}

#[test]
fn queue_outlives_the_life_that_received() {
    let (tx, rx) = byte_queue("lines", 10);
    for item in 0..3 {
        tx.try_send(item, 1).unwrap();
    }
    let first = rx.clone();
    let died = std::thread::spawn(move || {
        let item = first.try_recv().unwrap();
        assert_eq!(*item, 1, "dies with item {} in hand", *item);
    });
    assert!(died.join().is_err());
    let rest: Vec<i32> = std::iter::from_fn(|| rx.try_recv().map(Credited::into_item)).collect();
    assert_eq!(rest, [1, 2]);
    assert_eq!(rx.probe().queued_bytes(), 0, "the dead life's credit came back");
}

#[test]
fn age_is_the_oldest_items() {
    let (tx, rx) = byte_queue("lines", 100);
    let clock = Clock::new();
    assert_eq!(tx.probe().oldest_age(), Duration::ZERO);
    tx.try_send('a', 1).unwrap();
    let sent = clock.now();
    while clock.now().since(sent) < Duration::from_millis(30) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let between = clock.now();
    tx.try_send('b', 1).unwrap();
    assert!(rx.probe().oldest_age() >= Duration::from_millis(30));
    drop(rx.try_recv());
    let age = rx.probe().oldest_age();
    assert!(age <= clock.now().since(between), "b's own age, not a's: {age:?}");
    drop(rx.try_recv());
    assert_eq!(rx.probe().oldest_age(), Duration::ZERO);
}

#[test]
fn no_item_is_lost_or_doubled_between_many_threads() {
    let (tx, rx) = byte_queue::<u64>("lines", 64);
    let receivers: Vec<_> = (0..3)
        .map(|_| {
            let rx = rx.clone();
            std::thread::spawn(move || {
                let mut sum = 0;
                while let Some(item) = rx.recv_timeout(PATIENCE) {
                    if *item == u64::MAX {
                        break;
                    }
                    sum += *item;
                }
                sum
            })
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let tx = tx.clone();
            runtime.spawn(async move {
                for item in 1..=2_000 {
                    tx.send(item, item % 17).await.unwrap();
                }
            })
        })
        .collect();
    for sender in senders {
        runtime.block_on(sender).unwrap();
    }
    for _ in 0..3 {
        runtime.block_on(tx.send(u64::MAX, 1)).unwrap();
    }
    let sum: u64 = receivers.into_iter().map(|receiver| receiver.join().unwrap()).sum();
    assert_eq!(sum, 4 * 2_000 * 2_001 / 2);
    assert_eq!((rx.probe().queued_bytes(), rx.probe().oldest_age()), (0, Duration::ZERO));
}
