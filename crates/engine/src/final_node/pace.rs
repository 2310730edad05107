//! How fast a final node may catch up with what a store missed. Asked by threads that do not wait: they come again.
//!
//! A debt, not a bucket: a piece goes when nothing is owed, and then its points are owed and paid off at the rate. So over
//! any span at most `rate x span` points go, and one piece. A change of the rate takes effect at the next question, also
//! for who waits: the debt is in points.

use crate::time::Mono;

/// See the module's head.
#[derive(Clone, Copy, Debug)]
pub struct Debt {
    points: f64,
    at: Mono,
}

impl Default for Debt {
    fn default() -> Debt {
        Debt { points: 0.0, at: Mono::ZERO }
    }
}

impl Debt {
    /// Whether a piece may go now. `rate`: points a second; zero is a pause.
    #[allow(clippy::cast_precision_loss, reason = "rates far below 2^53")]
    pub fn is_paid(&mut self, now: Mono, rate: u64) -> bool {
        let paid = now.since(self.at).as_secs_f64() * rate as f64;
        (self.points, self.at) = ((self.points - paid).max(0.0), now);
        rate > 0 && self.points < 1.0
    }

    /// A piece went.
    pub fn add(&mut self, points: u64) {
        #[allow(clippy::cast_precision_loss, reason = "pieces far below 2^53")]
        let points = points as f64;
        self.points += points;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points that go in `seconds` with pieces of 100, asked every 10 ms.
    fn gone(debt: &mut Debt, from: u64, seconds: u64, rate: u64) -> u64 {
        let mut points = 0;
        for step in 0..seconds * 100 {
            if debt.is_paid(Mono::from_millis(from * 1000 + step * 10), rate) {
                debt.add(100);
                points += 100;
            }
        }
        points
    }

    #[test]
    fn the_rate_is_kept_over_a_span_and_a_pause_lets_nothing_through() {
        let mut debt = Debt::default();
        assert_eq!(gone(&mut debt, 1, 10, 1000), 10_000);
        assert_eq!(gone(&mut debt, 11, 10, 0), 0);
        assert_eq!(gone(&mut debt, 21, 1, 5000), 5000);
    }

    #[test]
    fn a_change_takes_effect_for_who_waits() {
        let mut debt = Debt::default();
        assert!(debt.is_paid(Mono::ZERO, 1));
        debt.add(10_000); // at one a second a wait of hours
        assert!(!debt.is_paid(Mono::from_millis(100), 1));
        assert!(debt.is_paid(Mono::from_millis(200), 1_000_000));
    }
}
