//! Mode flips 1,000 times with 40 % of the nodes flapping.

use proptest::prelude::*;

use super::*;

const FLIPS: usize = 1_000;

/// A small generator, so that a case is one number.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn node(&mut self, nodes: usize) -> usize {
        usize::try_from(self.roll(nodes as u64)).unwrap()
    }

    fn verdict(&mut self) -> Verdict {
        match self.roll(5) {
            0 => Verdict::Starting,
            1 => degraded(),
            2 => Verdict::Overloaded { queue_bytes: 1, lag_ms: self.roll(20_000) },
            3 => Verdict::Draining,
            _ => Verdict::Ready,
        }
    }
}

/// What the pool owes: its floor, as far as there are nodes without hard evidence against them.
fn owed(pool: &Pool, now: Mono, hands: &[Hand]) -> usize {
    let evidence = pool.evidence(now);
    let usable = evidence
        .iter()
        .zip(hands)
        .filter(|(seen, hand)| seen.up && seen.verdict != Some(Verdict::Draining) && **hand != Hand::Forgotten);
    pool.outcome().floor.min(usable.count())
}

fn flip(seed: u64, nodes: usize) {
    let mut dice = Dice(seed | 1);
    let quick = Settings {
        proof: Duration::from_secs(20),
        recover: Duration::from_secs(30),
        ..settings(Mode::ALL[dice.node(3)])
    };
    let mut world = World::with(quick, nodes);
    let flapping = nodes * 2 / 5;
    let mut hands = vec![Hand::Off; nodes];
    for _ in 0..FLIPS {
        for node in 0..flapping {
            match dice.roll(6) {
                0 => world.pool.link_down(world.now, node),
                1 => world.pool.link_up(world.now, node),
                2 => {
                    let verdict = dice.verdict();
                    world.pool.verdict(world.now, node, verdict);
                }
                3 => world.answers[node] = !world.answers[node],
                4 => world.latency[node] = Duration::from_millis(100 + dice.roll(9_000)),
                _ => {}
            }
        }
        if dice.roll(10) == 0 {
            let node = dice.node(nodes);
            hands[node] = [Hand::Off, Hand::Drained, Hand::Drained][dice.node(3)];
        }
        let mode = Mode::ALL[dice.node(3)];
        world.order(mode, &hands);
        assert_eq!(world.pool.orders(), Orders { mode, hands: hands.clone() });
        for _ in 0..=dice.roll(4) {
            let eligible = world.pool.outcome().eligible().into_iter().filter(|is_in| *is_in).count();
            let owed = owed(&world.pool, world.now, &hands);
            assert!(eligible >= owed, "{eligible} eligible, {owed} owed: {}", world.standings());
            // Three in five never flap, so there is always a floor to stand on.
            assert!(owed >= world.pool.outcome().floor.min(nodes - flapping));
            world.run(1);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_pool_never_falls_below_its_floor_and_the_preview_is_the_outcome(seed: u64, nodes in 1usize..=12) {
        flip(seed, nodes);
    }
}
