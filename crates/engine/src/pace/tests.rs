use std::collections::VecDeque;

use super::*;

const BOUNDS: Bounds = Bounds { ceiling: 50_000, floor: 1_000, paused: false, adaptive: true };

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// From `rate` on, these delays (ms) in turn give these rates.
#[track_caller]
fn check(bounds: Bounds, rate: u64, delays: &[Option<u64>], expected: &[u64]) {
    let mut controller = Controller::new(bounds, rate);
    let got: Vec<u64> = delays
        .iter()
        .map(|delay| {
            controller.step(Seen { delay: delay.map(ms), sent: 0 });
            controller.rate()
        })
        .collect();
    assert_eq!(got, expected, "{bounds:?} from {rate} with {delays:?}");
}

#[test]
fn the_rate_follows_the_receivers_queue_delay() {
    let some = |delays: &[u64]| delays.iter().copied().map(Some).collect::<Vec<_>>();
    // Empty queues: half a percent of the ceiling a step.
    check(BOUNDS, 10_000, &some(&[0, 0, 0]), &[10_250, 10_500, 10_750]);
    // Half the target: half of that. At the target: as it is.
    check(BOUNDS, 10_000, &some(&[25, 50, 50]), &[10_125, 10_125, 10_125]);
    // Above: down by up to a half.
    check(BOUNDS, 40_000, &some(&[75, 100, 250]), &[30_000, 15_000, 7_500]);
    // Never below the floor, never above the ceiling.
    check(BOUNDS, 1_500, &some(&[240, 240]), &[1_000, 1_000]);
    check(BOUNDS, 49_900, &some(&[0, 0]), &[50_000, 50_000]);
    // Overloaded: nothing, until the queues are short again; then from the floor.
    check(BOUNDS, 40_000, &some(&[251, 200, 60, 50, 49, 0]), &[0, 0, 0, 0, 1_005, 1_255]);
    // Nobody says anything: as it was.
    check(BOUNDS, 40_000, &[None, Some(300), None, Some(10)], &[40_000, 0, 0, 1_200]);
    // A floor above the ceiling is the ceiling.
    check(Bounds { floor: 90_000, ..BOUNDS }, 10, &some(&[200]), &[50_000]);
    check(Bounds { adaptive: false, ..BOUNDS }, 10, &some(&[200, 10_000]), &[50_000, 50_000]);
    check(Bounds { paused: true, ..BOUNDS }, 10_000, &some(&[0, 300, 0]), &[0, 0, 0]);
}

#[test]
fn a_ceiling_without_measure_does_not_make_steps_without_measure() {
    for ceiling in [1_000_000_000, u64::MAX] {
        let bounds = Bounds { ceiling, ..BOUNDS };
        let mut controller = Controller::new(bounds, 1_000);
        controller.step(Seen { delay: Some(ms(0)), sent: 0 });
        assert_eq!(controller.rate(), 6_000, "half a percent of a million");
        controller.step(Seen { delay: Some(ms(0)), sent: 2_000_000 });
        assert_eq!(controller.rate(), 46_000, "half a percent of twice what goes");
        let mut controller = Controller::new(bounds, u64::MAX);
        assert_eq!((controller.rate(), controller.held()), (ceiling, Held::Operator));
        controller.step(Seen { delay: Some(ms(100)), sent: 500_000 });
        assert_eq!((controller.rate(), controller.held()), (1_000_000, Held::Receiver), "down from what really goes");
    }
}

#[test]
fn a_change_of_the_operators_is_in_force_at_once() {
    #[track_caller]
    fn check(from: (u64, u64), to: Bounds, expected: (u64, Held)) {
        let (ceiling, rate) = from;
        let mut controller = Controller::new(Bounds { ceiling, ..BOUNDS }, rate);
        controller.set(to);
        assert_eq!((controller.rate(), controller.held()), expected, "{from:?} to {to:?}");
    }
    let ceiling = |ceiling| Bounds { ceiling, ..BOUNDS };
    check((50_000, 50_000), ceiling(200_000), (200_000, Held::Operator));
    check((50_000, 50_000), ceiling(2_000), (2_000, Held::Operator));
    check((50_000, 50_000), ceiling(10), (10, Held::Operator));
    // Held by the receivers: a higher ceiling changes nothing for the moment.
    check((50_000, 20_000), ceiling(200_000), (20_000, Held::Receiver));
    check((50_000, 20_000), ceiling(5_000), (5_000, Held::Operator));
    check((50_000, 20_000), Bounds { adaptive: false, ..BOUNDS }, (50_000, Held::Operator));
    check((50_000, 20_000), Bounds { paused: true, ..BOUNDS }, (0, Held::Paused));
}

#[test]
fn a_pause_keeps_the_rate_and_an_overload_outlasts_a_change() {
    let mut controller = Controller::new(BOUNDS, 20_000);
    controller.set(Bounds { paused: true, ..BOUNDS });
    controller.set(BOUNDS);
    assert_eq!(controller.rate(), 20_000);
    controller.step(Seen { delay: Some(ms(400)), sent: 0 });
    controller.set(Bounds { ceiling: 100_000, ..BOUNDS });
    assert_eq!((controller.rate(), controller.held()), (0, Held::Receiver));
    controller.set(Bounds { adaptive: false, ..BOUNDS });
    assert_eq!(controller.rate(), 50_000, "without adaptation the operator's word is all there is");
}

/// A receiver as a fluid, in steps of 10 ms: capacity a million a second, three quarters of it from 60 s to 120 s; live
/// takes 700,000, from 150 s to 180 s 1,050,000.
struct Fluid {
    live_first: bool,
    live: f64,
    replay: f64,
    backlog: f64,
    /// Live's delay in ms at each instant, and whether that is in or soon after the surge.
    delays: Vec<(f64, bool)>,
    drained: Option<f64>,
}

/// Points of replay that the receiver's windows let be unanswered.
const WINDOW: f64 = 300_000.0;

fn run(ceiling: u64, live_first: bool) -> Fluid {
    let mut fluid = Fluid { live_first, live: 0.0, replay: 0.0, backlog: 4.2e7, delays: Vec::new(), drained: None };
    let bounds = Bounds { ceiling, floor: 1_000, paused: false, adaptive: true };
    let mut controller = Controller::new(bounds, ceiling);
    let mut reports = VecDeque::from(vec![0.0_f64; 30]); // 300 ms old
    let mut sent = 0.0;
    for tick in 0..40_000_u32 {
        let at = f64::from(tick) / 100.0;
        let capacity: f64 = if (60.0..120.0).contains(&at) { 750_000.0 } else { 1_000_000.0 };
        let surge = (150.0..180.0).contains(&at);
        fluid.live += if surge { 10_500.0 } else { 7_000.0 };
        let room = (WINDOW - fluid.replay).max(0.0);
        #[allow(clippy::cast_precision_loss, reason = "a model")]
        let goes = (controller.rate() as f64 / 100.0).min(room).min(fluid.backlog);
        fluid.replay += goes;
        fluid.backlog -= goes;
        sent += goes;
        serve(&mut fluid, capacity / 100.0);
        let queued = fluid.live + fluid.replay;
        // A receiver reports live's delay; in one queue that is the delay of all.
        let delay = if live_first { fluid.live / capacity } else { queued / capacity };
        fluid.delays.push((delay * 1e3, (150.0..190.0).contains(&at)));
        reports.push_back(delay);
        let old = reports.pop_front().unwrap();
        if tick % 50 == 49 {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a model")]
            controller.step(Seen { delay: Some(Duration::from_secs_f64(old)), sent: sent as u64 });
            sent = 0.0;
        }
        if fluid.backlog + fluid.replay < 1.0 && fluid.drained.is_none() {
            fluid.drained = Some(at);
        }
    }
    fluid
}

fn serve(fluid: &mut Fluid, mut capacity: f64) {
    if fluid.live_first {
        let live = fluid.live.min(capacity);
        fluid.live -= live;
        capacity -= live;
        fluid.replay -= fluid.replay.min(capacity);
    } else {
        let all = fluid.live + fluid.replay;
        let share = (capacity / all.max(1.0)).min(1.0);
        fluid.live -= fluid.live * share;
        fluid.replay -= fluid.replay * share;
    }
}

fn percentile(fluid: &Fluid, surge: bool, percent: usize) -> f64 {
    let mut delays: Vec<f64> =
        fluid.delays.iter().filter(|(_, in_surge)| *in_surge == surge).map(|(delay, _)| *delay).collect();
    delays.sort_by(f64::total_cmp);
    delays[delays.len() * percent / 100]
}

#[test]
fn live_delay_stays_bounded_under_every_ceiling() {
    for ceiling in [100_000, 400_000, 1_000_000, 1_000_000_000, u64::MAX] {
        for live_first in [true, false] {
            let fluid = run(ceiling, live_first);
            let (p90, p99) = (percentile(&fluid, false, 90), percentile(&fluid, false, 99));
            let drained = fluid.drained;
            println!(
                "ceiling {ceiling}, live first {live_first}: p90 {p90:.0} ms, p99 {p99:.0} ms, drained {drained:?}"
            );
            let (p90_max, p99_max) = if live_first { (1.0, 10.0) } else { (60.0, 300.0) };
            assert!(p90 <= p90_max && p99 <= p99_max, "ceiling {ceiling}: p90 {p90} ms, p99 {p99} ms");
            assert!(ceiling < 400_000 || drained.is_some_and(|at| at < 390.0), "drained {drained:?}");
        }
    }
}
