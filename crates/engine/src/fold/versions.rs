//! A shard's memory while the rules change: batches are folded by the rules they were made for, for those decide which
//! partitions a batch feeds. Rules have ids that do not depend on the version, so partials of all versions go into the same
//! windows.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Folder;
use crate::batch::{Batch, PartitionSet};
use crate::rule::RuleSet;
use crate::wire::{Group, Lane};

/// Rules of former days that batches may still carry, by their version.
pub type FormerRules = BTreeMap<u64, Arc<RuleSet>>;

/// See the module's head.
#[derive(Debug)]
pub struct Folders {
    in_force: Folder,
    version: u64,
    known: Arc<FormerRules>,
    /// Those that something was folded for lately.
    former: BTreeMap<u64, Former>,
    partitions: u16,
}

#[derive(Debug)]
struct Former {
    folder: Folder,
    /// Something came since the last trim.
    is_used: bool,
}

impl Folders {
    pub fn new(rules: Arc<RuleSet>, known: Arc<FormerRules>, partitions: u16) -> Folders {
        let version = rules.version();
        let in_force = Folder::new(rules, partitions);
        Folders { in_force, version, known, former: BTreeMap::new(), partitions }
    }

    /// Whether a batch can be folded.
    pub fn knows(&self, batch: &Batch) -> bool {
        let version = batch.header().versions.rules;
        version == self.version || self.known.contains_key(&version)
    }

    /// More former rules are known; none is less.
    pub fn learn(&mut self, known: Arc<FormerRules>) {
        self.known = known;
    }

    /// Folds the points of a batch that belong to `partitions` into `lane`. A batch for rules that nobody knows is not
    /// taken in to begin with; here nothing is folded for it, and it is listed nowhere.
    pub fn fold(&mut self, batch: &Batch, partitions: PartitionSet, lane: Lane) {
        let version = batch.header().versions.rules;
        if version == self.version {
            return self.in_force.fold(batch, partitions, lane);
        }
        if !self.former.contains_key(&version) {
            let Some(rules) = self.known.get(&version) else {
                debug_assert!(false, "BUG: a batch for unknown rules came to a shard");
                return;
            };
            let folder = Folder::new(Arc::clone(rules), self.partitions);
            self.former.insert(version, Former { folder, is_used: true });
        }
        if let Some(former) = self.former.get_mut(&version) {
            former.is_used = true;
            former.folder.fold(batch, partitions, lane);
        }
    }

    /// What one partition's lane holds for a flush, or nothing. It is empty afterwards.
    pub fn take(&mut self, partition: u16, lane: Lane) -> Vec<Group> {
        let mut groups = self.in_force.take(partition, lane);
        for former in self.former.values_mut() {
            groups.append(&mut former.folder.take(partition, lane));
        }
        groups
    }

    /// Whether there is anything for a flush.
    pub fn has(&self, partition: u16, lane: Lane) -> bool {
        self.in_force.has(partition, lane) || self.former.values().any(|former| former.folder.has(partition, lane))
    }

    /// Once a flush: forgets what is cached beyond its budget, and what no batch has needed since the last time.
    pub fn trim(&mut self) {
        self.in_force.trim();
        self.former.retain(|_, former| {
            former.folder.trim();
            std::mem::take(&mut former.is_used) || former.folder.holds_something()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Builder, Claim, Incarnation, Versions};
    use crate::deltas;
    use crate::pattern::Selector;
    use crate::rule::{Function, RuleSpec};
    use crate::time::UnixSeconds;

    fn rules(selector: &str, output: &str) -> Arc<RuleSet> {
        let spec = RuleSpec {
            name: "r".to_owned(),
            selector: Selector::Glob(selector.to_owned()),
            interval: 10,
            grace: 5,
            functions: vec![Function::Sum],
            output: output.to_owned(),
            group_by: Vec::new(),
            drop_raw: false,
            completeness: false,
            to: vec![0],
        };
        Arc::new(RuleSet::compile(&[spec]).expect("good"))
    }

    fn batch(seq: u32, rules: u64) -> (Batch, PartitionSet) {
        let set = PartitionSet::default().with(0);
        let mut builder = Builder::new(set, 64);
        builder.append(b"a.x 1 1000\na.y 2 1000\n", 2, UnixSeconds(1000), UnixSeconds(1000));
        let incarnation = Incarnation { sender: 1, epoch: 1, nonce: 1 };
        let versions = Versions { rules, map: 0 };
        (builder.seal(incarnation, seq, versions, &[Claim { partition: 0, from: seq }]), set)
    }

    fn sums(groups: &[Group]) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        for group in groups {
            deltas::decode(&group.deltas, |delta| {
                found.push((String::from_utf8_lossy(delta.name).into_owned(), delta.partial.points()));
            })
            .expect("they were encoded");
        }
        found
    }

    #[test]
    fn a_batch_is_folded_by_the_rules_it_was_made_for() {
        let (now, old) = (rules("a.*", "new.{function}"), rules("a.x", "old.{function}"));
        let known = Arc::new(FormerRules::from([(old.version(), Arc::clone(&old))]));
        let mut folders = Folders::new(Arc::clone(&now), known, 1);
        for lane in Lane::ALL {
            for (seq, version) in [(0, now.version()), (1, old.version()), (2, now.version())] {
                let (batch, set) = batch(seq, version);
                folders.fold(&batch, set, lane);
            }
            assert!(folders.has(0, lane));
            let groups = folders.take(0, lane);
            let members: Vec<u32> =
                groups.iter().flat_map(|group| &group.included).map(|member| member.id.seq).collect();
            assert_eq!(members, [0, 2, 1], "each batch stands in a group of its own version");
            let points: u64 = sums(&groups).iter().map(|(_, points)| points).sum();
            assert_eq!(points, 5);
            assert!(sums(&groups).contains(&("old.\0".to_owned(), 1)));
            assert!(!folders.has(0, lane));
        }
        folders.trim();
        assert_eq!(folders.former.len(), 1, "it was used");
        folders.trim();
        assert!(folders.former.is_empty(), "nobody needs it any more");
    }
}
