//! What the stores must hold in the end: the points of every (batch, partition) that is in a log, folded in the simplest way.
//! Integers only, so that there is one right answer to the last digit.

use std::collections::BTreeMap;

use engine::rule::RuleId;

use crate::setup::Setup;
use crate::truth::Truth;

/// Name and timestamp of a line, and its value as text.
pub type Lines = BTreeMap<(Vec<u8>, u32), String>;

#[derive(Clone, Debug)]
struct Fold {
    sum: i64,
    count: i64,
    min: i64,
    max: i64,
    /// The latest point: by time, then by sender, epoch, number and place in the batch.
    last: ((u32, u64, u32, u32, usize), i64),
}

/// Every line that a store must have, and no other.
pub fn expected(setup: &Setup, truth: &Truth) -> Lines {
    let mut folds: BTreeMap<(RuleId, Vec<u8>, u32), Fold> = BTreeMap::new();
    for (id, partition) in truth.included() {
        let Some(sealed) = truth.batches.get(&id) else { continue };
        for (index, point) in sealed.points.iter().enumerate() {
            for (key, _) in setup.files[sealed.file].feeds[point.series].iter().filter(|(_, fed)| *fed == partition) {
                let interval = setup.rules.spec(key.rule).map_or(1, |spec| spec.interval);
                let window = point.at - point.at % interval;
                let order = (point.at, id.sender, id.epoch, id.seq, index);
                let value = point.value;
                folds
                    .entry((key.rule, key.name.to_vec(), window))
                    .and_modify(|fold| {
                        fold.sum += value;
                        fold.count += 1;
                        fold.min = fold.min.min(value);
                        fold.max = fold.max.max(value);
                        fold.last = fold.last.max((order, value));
                    })
                    .or_insert(Fold { sum: value, count: 1, min: value, max: value, last: (order, value) });
            }
        }
    }
    let mut lines = Lines::new();
    let mut name = Vec::new();
    for ((rule, key, window), fold) in folds {
        // In the order of the functions in `setup::specs`.
        for (position, value) in [fold.sum, fold.count, fold.min, fold.max, fold.last.1].into_iter().enumerate() {
            setup.rules.output_name(rule, &key, position, &mut name);
            lines.insert((name.clone(), window), value.to_string());
        }
    }
    lines
}
