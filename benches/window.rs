//! Folding points into partials: ns per point, beside a plain array of sums as the floor. 8 inputs an output.

mod harness;

use engine::deltas::{Deltas, KeyId, KeyTable};
use engine::partial::{PointOrder, Shape};
use engine::rule::{Function, OutputKey};
use engine::time::UnixSeconds;
use harness::{Row, measure, print};
use std::hint::black_box;

const INPUTS: u32 = 8;
const WINDOW: UnixSeconds = UnixSeconds(1_700_000_000);

/// One pass over every input series, whose keys are cached as a shard caches them.
fn fold(outputs: u32, functions: &[Function]) -> f64 {
    let shape = Shape::of(functions);
    let mut keys = KeyTable::new();
    let ids: Vec<KeyId> = (0..outputs)
        .map(|number| {
            let key = OutputKey { rule: 0, name: format!("groups.g{number:06}.cpu.{{function}}").into_bytes().into() };
            keys.intern(&key, shape).unwrap_or_else(|| panic!("a key table for {outputs} outputs"))
        })
        .collect();
    let points = outputs * INPUTS;
    let order = |index| PointOrder { ts: WINDOW.0, sender: 1, epoch: 1, seq: 1, index };
    let mut deltas = Deltas::new();
    measure(points, || {
        for index in 0..points {
            let output = (index.wrapping_mul(7_919) % outputs) as usize;
            deltas.fold(&keys, ids[output], WINDOW, f64::from(index), order(index), u64::from(index));
        }
        black_box(deltas.points())
    })
}

fn floor(outputs: u32) -> f64 {
    let points = outputs * INPUTS;
    let mut sums = vec![0.0_f64; outputs as usize];
    measure(points, || {
        for index in 0..points {
            let output = (index.wrapping_mul(7_919) % outputs) as usize;
            sums[output] += f64::from(black_box(index));
        }
        sums[0]
    })
}

fn main() {
    use Function::{Avg, Count, Max, Min, Percentile, Sum};
    for outputs in [1_250, 125_000] {
        print(
            &format!("fold into {outputs} open windows"),
            &[
                Row::new("array of sums (floor)", floor(outputs)),
                Row::new("sum", fold(outputs, &[Sum])),
                Row::new("sum count avg min max", fold(outputs, &[Sum, Count, Avg, Min, Max])),
                Row::new("the same and p99", fold(outputs, &[Sum, Count, Avg, Min, Max, Percentile(990)])),
            ],
        );
    }
}
