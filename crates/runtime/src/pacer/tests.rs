use std::sync::Arc;

use tokio::time::{sleep, timeout};

use super::*;

fn rate(points: u64) -> Pace {
    assert!(points > 0);
    Pace::per_second(points)
}

/// Points that go within `span` in batches of `batch`.
async fn released(pacer: &Pacer, batch: u32, span: Duration) -> u64 {
    let end = Instant::now() + span;
    let mut points = 0;
    while timeout(end - Instant::now(), pacer.acquire(batch)).await.is_ok() && Instant::now() < end {
        points += u64::from(batch);
    }
    points
}

#[track_caller]
fn assert_near(got: u64, ideal: u64, slack_percent: u64, batch: u64) {
    let slack = ideal * slack_percent / 100 + batch;
    assert!(got.abs_diff(ideal) <= slack, "{got} points went, {ideal} were right");
}

#[tokio::test(start_paused = true)]
async fn any_rate_is_kept_with_any_batch() {
    for (per_second, batch) in
        [(1, 1), (7, 3), (1_000, 1), (1_000, 16_000), (50_000, 4_000), (3_000_000, 16_000), (300_000_000, 16_000)]
    {
        let seconds = if batch > per_second { 200 } else { 10 };
        let pacer = Pacer::new(rate(per_second));
        let got = released(&pacer, u32::try_from(batch).unwrap(), Duration::from_secs(seconds)).await;
        let ideal = per_second * seconds;
        assert_near(got, ideal, 1, batch);
        assert!(got <= ideal + ideal / 1000 + batch, "{got} of {ideal} at {per_second}/s is above the rate");
    }
}

#[tokio::test(start_paused = true)]
async fn changes_neither_release_nor_lose_a_point() {
    for (one, other, batch) in [(1_000, 1_000, 50), (1_000, 2_000, 7), (1, 2, 1), (1, 100_000, 500), (3, 700, 4_000)] {
        let pacer = Arc::new(Pacer::new(rate(one)));
        let changing = Arc::clone(&pacer);
        let changer = tokio::spawn(async move {
            for turn in 0..2_000 {
                sleep(Duration::from_millis(10)).await;
                changing.set(rate(if turn % 2 == 0 { other } else { one }));
            }
        });
        let got = released(&pacer, batch, Duration::from_secs(20)).await;
        changer.abort();
        assert_near(got, 10 * (one + other), 5, 2 * u64::from(batch));
    }
}

#[tokio::test(start_paused = true)]
async fn who_sleeps_at_the_old_rate_wakes_at_the_new_one() {
    let pacer = Arc::new(Pacer::new(rate(1)));
    pacer.acquire(3_600).await; // an hour's debt
    let waiting = Arc::clone(&pacer);
    let waiter = tokio::spawn(async move {
        waiting.acquire(1).await;
        Instant::now()
    });
    sleep(Duration::from_secs(5)).await;
    let changed = Instant::now();
    pacer.set(rate(100_000));
    let woke = waiter.await.unwrap() - changed;
    assert!(woke < Duration::from_millis(50), "woke after {woke:?}");
}

#[tokio::test(start_paused = true)]
async fn a_debt_stays_a_debt_over_a_change() {
    let pacer = Pacer::new(rate(100_000));
    sleep(Duration::from_secs(1)).await;
    pacer.acquire(102_000).await; // 2000 were saved
    pacer.set(rate(1_000));
    let before = Instant::now();
    pacer.acquire(1).await;
    assert!(before.elapsed() >= Duration::from_secs(99), "100,000 points were owed at 1000/s");
}

#[tokio::test(start_paused = true)]
async fn a_pause_stops_all_and_keeps_the_credit() {
    let pacer = Pacer::new(rate(1_000));
    sleep(Duration::from_secs(5)).await;
    pacer.set(Pace::Paused);
    assert_eq!(pacer.pace(), Pace::Paused);
    assert!(timeout(Duration::from_secs(60), pacer.acquire(1)).await.is_err());
    pacer.set(rate(1_000));
    let before = Instant::now();
    pacer.acquire(10).await;
    pacer.acquire(10).await;
    assert!(before.elapsed() < Duration::from_millis(2), "20 points were saved before the pause");
    pacer.acquire(10).await;
    assert!(before.elapsed() >= Duration::from_millis(9), "nothing was earned during the pause");
}

#[tokio::test(start_paused = true)]
async fn after_a_rest_a_window_and_a_batch_go_at_the_most() {
    let pacer = Pacer::new(rate(1_000_000));
    sleep(Duration::from_secs(3_600)).await;
    let got = released(&pacer, 1_000, Duration::from_millis(1)).await;
    assert!(got <= 20_000 + 1_000 + 1_000, "{got}");
}

#[tokio::test(start_paused = true)]
async fn unlimited_waits_for_nothing_and_forgets_debts() {
    let pacer = Pacer::new(rate(1));
    pacer.acquire(1_000_000).await;
    pacer.set(Pace::Unlimited);
    let before = Instant::now();
    for _ in 0..10_000 {
        pacer.acquire(u32::MAX).await;
    }
    assert_eq!(before.elapsed(), Duration::ZERO);
    pacer.set(rate(10));
    pacer.acquire(1).await;
    assert!(before.elapsed() <= Duration::from_millis(101));
}

#[tokio::test(start_paused = true)]
async fn the_largest_debt_there_is_does_not_wrap() {
    let pacer = Pacer::new(rate(1));
    for _ in 0..3 {
        pacer.bucket().limiter.as_ref().unwrap().arrival.push_back(u64::MAX / 3);
    }
    assert!(timeout(Duration::from_secs(86_400), pacer.acquire(u32::MAX)).await.is_err());
    pacer.set(rate(u64::MAX));
    pacer.set(rate(1));
    assert!(timeout(Duration::from_secs(86_400), pacer.acquire(1)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_takes_nothing() {
    let pacer = Pacer::new(rate(1_000));
    pacer.acquire(1_000).await; // a second's debt
    let before = Instant::now();
    for _ in 0..100 {
        assert!(timeout(Duration::from_millis(1), pacer.acquire(5)).await.is_err());
    }
    let left = Duration::from_secs(11) - before.elapsed();
    assert_near(released(&pacer, 1, left).await, 10_000, 0, 20);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_for_nothing() {
    let pacer = Pacer::new(Pace::Paused);
    pacer.acquire(0).await;
    assert_eq!(Pace::per_second(0), Pace::Paused);
}
