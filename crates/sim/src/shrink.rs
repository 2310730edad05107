//! From a failing schedule to a small one that fails in the same way: parts are left out for as long as that works.

use crate::faults::Planned;
use crate::run::{Plan, Report, run};

/// Runs that shrinking may take.
const TRIES: u32 = 300;

/// The smallest schedule found, and how its run goes. `report`: of a run that failed.
pub fn shrink(report: &Report) -> Report {
    let mut best = report.clone();
    let mut tries = TRIES;
    let mut part = best.schedule.len().div_ceil(2).max(1);
    while part > 0 && tries > 0 {
        let mut at = 0;
        let mut found = false;
        while at < best.schedule.len() && tries > 0 {
            tries -= 1;
            let mut schedule: Vec<Planned> = best.schedule.clone();
            let end = (at + part).min(schedule.len());
            schedule.drain(at..end);
            let tried = run(&Plan { schedule: Some(schedule), ..Plan::seed(report.seed) });
            if is_same(&tried, report) {
                best = tried;
                found = true;
            } else {
                at += part;
            }
        }
        if !found || part > 1 {
            part /= 2;
        }
    }
    best
}

/// The same invariant, as far as its id goes.
fn is_same(left: &Report, right: &Report) -> bool {
    let id = |report: &Report| report.violations.first().and_then(|what| what.split(':').next().map(str::to_owned));
    id(left).is_some() && id(left) == id(right)
}
