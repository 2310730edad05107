use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { bytes: 100, age: Duration::from_secs(60) };

fn at(millis: u64) -> Mono {
    Mono::from_millis(millis)
}

fn sent(next: Next) -> (u64, String) {
    match next {
        Next::Send(attempt) => (attempt.number, attempt.body.to_string()),
        Next::Wait { .. } | Next::Nothing => panic!("nothing to send: {next:?}"),
    }
}

fn offer(outbox: &mut Outbox, now: u64, id: &str) {
    outbox.offer(at(now), id, &format!("body of {id}"), at(now));
}

#[test]
fn the_oldest_goes_first_and_stays_until_it_is_taken() {
    let mut outbox = Outbox::new(LIMITS);
    assert_eq!(outbox.next(at(0)), Next::Nothing);
    offer(&mut outbox, 0, "a");
    offer(&mut outbox, 1, "b");
    let (number, body) = sent(outbox.next(at(1)));
    assert_eq!((body.as_str(), outbox.next(at(1))), ("body of a", Next::Nothing), "one at a time");
    outbox.ended(at(2), number, Err(Failure::Timeout), u64::MAX);
    assert_eq!(outbox.next(at(3)), Next::Wait { until: at(502) });
    let (number, body) = sent(outbox.next(at(502)));
    assert_eq!(body, "body of a", "the same again");
    outbox.ended(at(503), number, Ok(()), 0);
    assert_eq!(sent(outbox.next(at(503))).1, "body of b");
    assert_eq!((outbox.counts().sent, outbox.counts().failed), (1, [0, 0, 1, 0, 0, 0, 0]));
}

#[test]
fn waits_grow_to_half_a_minute_and_a_success_forgets_them() {
    let mut outbox = Outbox::new(Limits { age: Duration::from_secs(9_999), ..LIMITS });
    offer(&mut outbox, 0, "a");
    offer(&mut outbox, 0, "b");
    let mut now = 0;
    let mut waits = Vec::new();
    for _ in 0..9 {
        let (number, _) = sent(outbox.next(at(now)));
        outbox.ended(at(now), number, Err(Failure::Connect), u64::MAX);
        let Next::Wait { until } = outbox.next(at(now)) else { panic!("it does not wait") };
        waits.push(u64::try_from(until.since(at(now)).as_millis()).unwrap());
        now += waits.last().unwrap();
    }
    assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
    let (number, _) = sent(outbox.next(at(now)));
    outbox.ended(at(now), number, Ok(()), u64::MAX);
    let (number, _) = sent(outbox.next(at(now)));
    outbox.ended(at(now), number, Err(Failure::Status), u64::MAX);
    assert_eq!(outbox.next(at(now)), Next::Wait { until: at(now + 500) });
}

#[test]
fn a_full_queue_gives_up_the_oldest_but_not_what_is_on_its_way() {
    let mut outbox = Outbox::new(Limits { bytes: 33, ..LIMITS });
    for id in ["a", "b", "c"] {
        offer(&mut outbox, 0, id);
    }
    assert_eq!((outbox.waiting(), outbox.counts().queue_full), ((3, 30), 0));
    assert_eq!(sent(outbox.next(at(0))).1, "body of a");
    offer(&mut outbox, 0, "d");
    assert_eq!((outbox.waiting(), outbox.counts().queue_full), ((3, 30), 1));
    outbox.ended(at(0), 1, Ok(()), 0);
    assert_eq!(sent(outbox.next(at(0))).1, "body of c");
}

#[test]
fn what_nobody_took_is_given_up_at_its_age_also_while_it_waits() {
    let mut outbox = Outbox::new(LIMITS);
    offer(&mut outbox, 0, "a");
    let (number, _) = sent(outbox.next(at(59_900)));
    outbox.ended(at(59_950), number, Err(Failure::Broken), u64::MAX);
    assert_eq!(outbox.next(at(60_001)), Next::Nothing);
    assert_eq!((outbox.counts().too_old, outbox.waiting()), (1, (0, 0)));
}

#[test]
fn one_that_is_refused_goes_behind_the_others() {
    let mut outbox = Outbox::new(LIMITS);
    offer(&mut outbox, 0, "a");
    offer(&mut outbox, 0, "b");
    let (number, _) = sent(outbox.next(at(0)));
    outbox.ended(at(0), number, Err(Failure::Refused), 0);
    assert_eq!(sent(outbox.next(at(1))).1, "body of b");
}

#[test]
fn what_is_held_may_be_taken_back_until_it_is_due_and_is_not_held_at_the_end() {
    let mut outbox = Outbox::new(LIMITS);
    outbox.offer(at(0), "a", "a", at(1_000));
    outbox.offer(at(0), "b", "b", at(1_000));
    offer(&mut outbox, 5, "c");
    assert_eq!(sent(outbox.next(at(5))).1, "body of c", "nobody waits behind what is held");
    outbox.ended(at(6), 3, Ok(()), 0);
    assert_eq!(outbox.next(at(6)), Next::Wait { until: at(1_000) });
    assert!(outbox.retract(at(7), "a") && !outbox.retract(at(7), "a") && !outbox.retract(at(1_000), "b"));
    outbox.hurry();
    assert_eq!(sent(outbox.next(at(8))).1, "b");
    assert_eq!(outbox.counts().retracted, 1);
}

#[test]
fn a_worker_that_died_leaves_its_attempt_to_its_successor_and_is_not_heard_any_more() {
    let mut outbox = Outbox::new(LIMITS);
    offer(&mut outbox, 0, "a");
    offer(&mut outbox, 0, "b");
    let (number, _) = sent(outbox.next(at(0)));
    outbox.begin();
    assert_eq!(sent(outbox.next(at(1))).0, number, "tried again");
    outbox.ended(at(2), number, Ok(()), 0);
    outbox.ended(at(3), number, Err(Failure::Timeout), 0);
    assert_eq!((outbox.counts().sent, outbox.failures()), (1, 0));
    assert_eq!(sent(outbox.next(at(4))).1, "body of b");
}

#[test]
fn only_a_success_is_one() {
    for (status, result) in [
        (200, Ok(())),
        (204, Ok(())),
        (100, Err(Failure::Status)),
        (302, Err(Failure::Status)),
        (400, Err(Failure::Refused)),
        (401, Err(Failure::Status)),
        (413, Err(Failure::Refused)),
        (422, Err(Failure::Refused)),
        (429, Err(Failure::Status)),
        (500, Err(Failure::Status)),
    ] {
        assert_eq!(judge(status), result, "{status}");
    }
}

proptest! {
    /// Whatever an endpoint does: the queue is bounded, every notice is told, given up, taken back or waits, nothing is
    /// told after it was told, and an endpoint that takes everything ends up with an empty queue.
    #[test]
    fn nothing_is_stuck_and_everything_is_counted(steps in prop::collection::vec((0u8..8, 0u64..20_000, any::<u64>()), 1..200)) {
        let mut outbox = Outbox::new(Limits { bytes: 60, age: Duration::from_secs(60) });
        let (mut now, mut offered, mut out) = (0, 0u64, None);
        let mut told = std::collections::BTreeSet::new();
        for (what, millis, random) in steps {
            match what {
                0 | 1 => {
                    offered += 1;
                    outbox.offer(at(now), &offered.to_string(), "12345678", at(now + millis % 3));
                }
                2 => now += millis,
                3 => { outbox.retract(at(now), &offered.to_string()); }
                4 => { outbox.begin(); out = None; }
                5 => outbox.hurry(),
                _ => match out.take() {
                    Some(number) => {
                        let result = if random % 3 == 0 { Ok(()) } else { Err(Failure::ALL[usize::try_from(random % 7).unwrap()]) };
                        prop_assert!(!told.contains(&number));
                        if result.is_ok() { told.insert(number); }
                        outbox.ended(at(now), number, result, random);
                    }
                    None => if let Next::Send(attempt) = outbox.next(at(now)) { out = Some(attempt.number); },
                }
            }
            let (waiting, bytes) = outbox.waiting();
            let counts = outbox.counts();
            prop_assert!(bytes <= 60 + 12);
            prop_assert_eq!(offered, counts.sent + counts.queue_full + counts.too_old + counts.retracted + waiting as u64);
        }
        outbox.begin();
        for _ in 0..300 {
            match outbox.next(at(now)) {
                Next::Send(attempt) => outbox.ended(at(now), attempt.number, Ok(()), 0),
                Next::Wait { until } => now = until.as_nanos().div_ceil(1_000_000),
                Next::Nothing => break,
            }
        }
        prop_assert_eq!(outbox.waiting(), (0, 0));
    }
}
