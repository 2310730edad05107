//! Which node of a pool takes which slot, where a slot is one partition of the key space.
//!
//! Rendezvous order with a cap: every slot ranks the eligible nodes by a hash of (slot, name), and takes the first
//! that has not its fair share yet. So all senders agree without talking, a node that leaves moves only its own slots
//! (and the few that the cap then shifts), and with 16 slots over 3 nodes nobody gets 9.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// For each slot below `slots`, the index into `names` of the node that takes it; `None` for all if no node is
/// eligible.
///
/// `eligible`: as long as `names`.
pub fn assign(slots: u16, names: &[String], eligible: &[bool]) -> Vec<Option<usize>> {
    let members: Vec<usize> = (0..names.len()).filter(|&index| eligible.get(index).copied().unwrap_or(false)).collect();
    if members.is_empty() {
        return vec![None; usize::from(slots)];
    }
    let share = usize::from(slots).div_ceil(members.len());
    let mut load = vec![0usize; names.len()];
    (0..slots)
        .map(|slot| {
            let chosen = preference(slot, names, &members).into_iter().find(|&index| load[index] < share);
            if let Some(index) = chosen {
                load[index] += 1;
            }
            chosen
        })
        .collect()
}

/// The members in the order in which `slot` prefers them.
pub fn preference(slot: u16, names: &[String], members: &[usize]) -> Vec<usize> {
    let mut ranked: Vec<(u64, usize)> =
        members.iter().map(|&index| (xxh3_64_with_seed(names[index].as_bytes(), u64::from(slot)), index)).collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    ranked.into_iter().map(|(_, index)| index).collect()
}

/// A number for "these nodes own these partitions": it changes when either does. Part of a batch's versions.
pub fn map_version(partitions: u16, names: &[String]) -> u32 {
    let mut text = format!("{partitions}");
    for name in names {
        text.push('\n');
        text.push_str(name);
    }
    let hash = xxh3_64_with_seed(text.as_bytes(), 0);
    u32::try_from(hash & u64::from(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (1..=n).map(|index| format!("partial-{index}")).collect()
    }

    #[test]
    fn no_node_gets_more_than_its_share() {
        for n in 1..=7 {
            let assigned = assign(16, &names(n), &vec![true; n]);
            for node in 0..n {
                let load = assigned.iter().filter(|slot| **slot == Some(node)).count();
                assert!(load <= 16usize.div_ceil(n), "{n} nodes, node {node} has {load}");
            }
        }
    }

    #[test]
    fn a_node_that_leaves_moves_little_else() {
        let all = assign(64, &names(4), &[true; 4]);
        let without = assign(64, &names(4), &[true, true, true, false]);
        let moved = all.iter().zip(&without).filter(|(before, after)| **before != Some(3) && before != after).count();
        assert!(without.iter().all(|slot| slot.is_some_and(|node| node < 3)));
        assert!(moved <= 16, "{moved} of 48 slots moved that did not have to");
    }

    #[test]
    fn without_an_eligible_node_no_slot_is_taken() {
        assert_eq!(assign(3, &names(2), &[false, false]), [None, None, None]);
    }

    #[test]
    fn the_map_version_follows_the_names_and_their_number() {
        assert_ne!(map_version(16, &names(2)), map_version(16, &names(3)));
        assert_ne!(map_version(16, &names(2)), map_version(8, &names(2)));
        assert_eq!(map_version(16, &names(2)), map_version(16, &names(2)));
    }
}
