//! From due windows to blocks of lines for the stores' senders.

use std::collections::BTreeMap;

use bytes::Bytes;
use engine::final_node::Partition;
use engine::store_link::Block;
use engine::time::UnixSeconds;
use engine::window::Emitted;
use output::StoreSender;

use super::role::{FinalRole, ShardState};

/// Keys emitted from one partition before the shard looks at its input again.
const KEYS_PER_TURN: usize = 2048;

/// Lines for one address of a store.
#[derive(Debug, Default)]
struct Lines {
    bytes: Vec<u8>,
    points: u32,
}

/// Whether every sender would take lines now. Windows wait otherwise: they hold the newest values anyway.
pub(crate) fn has_room(role: &FinalRole, state: &ShardState) -> bool {
    state.unsent.is_empty() && role.setup.stores.iter().flat_map(|store| &store.senders).all(StoreSender::accepts)
}

/// Emits what is due in one partition. The lines are with their senders, or in `state.unsent`, when this returns.
pub(crate) fn emit(role: &FinalRole, partition: &mut Partition, state: &mut ShardState) -> Emitted {
    let clock = role.setup.clock;
    let now = UnixSeconds(clock.unix().0);
    let mut out: BTreeMap<(usize, usize), Lines> = BTreeMap::new();
    let mut picked = Vec::new();
    let rules = &role.setup.rules;
    let emitted =
        partition.windows().take_emissions(now, role.watermark(), clock.now(), rules, KEYS_PER_TURN, &mut |emission| {
            let stores = rules.spec(emission.rule).map(|spec| spec.to.as_slice()).unwrap_or_default();
            for &store in stores {
                share(role, store, emission.bytes, emission.lines, &mut out, &mut picked);
            }
        });
    state.emitted_lines += emitted.lines;
    state.corrections += emitted.corrections;
    for (to, lines) in out {
        state.unsent.insert(to, Block { bytes: Bytes::from(lines.bytes), points: lines.points });
    }
    send(role, state);
    emitted
}

/// Gives the lines of one emission to the addresses that a store's ring picks for each.
fn share(
    role: &FinalRole,
    store: usize,
    bytes: &[u8],
    lines: u32,
    out: &mut BTreeMap<(usize, usize), Lines>,
    picked: &mut Vec<usize>,
) {
    let Some(ring) = role.setup.rings.get(store) else { return };
    if role.setup.stores[store].senders.len() == 1 {
        let to = out.entry((store, 0)).or_default();
        to.bytes.extend_from_slice(bytes);
        to.points += lines;
        return;
    }
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let name = line.split(|byte| *byte == b' ').next().unwrap_or_default();
        picked.clear();
        ring.pick(name, picked);
        for &address in picked.iter() {
            let to = out.entry((store, address)).or_default();
            to.bytes.extend_from_slice(line);
            to.points += 1;
        }
    }
}

/// Offers what is unsent to its senders; what they do not take stays.
pub(crate) fn send(role: &FinalRole, state: &mut ShardState) {
    let waiting = std::mem::take(&mut state.unsent);
    for ((store, address), block) in waiting {
        if let Err(refused) = role.setup.stores[store].senders[address].try_offer(block) {
            state.unsent.insert((store, address), refused.into_block());
        }
    }
}
