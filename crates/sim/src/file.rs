//! The cluster files of a run: the rules change, nodes read the file at their start, so for a while they differ.

use std::sync::Arc;

use engine::batch::Versions;
use engine::pattern::Selector;
use engine::pool;
use engine::rule::{Function, OutputKey, RuleSet, RuleSpec, partition_of};

/// Index into the setup's files.
pub type FileId = usize;

/// One cluster file, as far as it changes.
#[derive(Debug)]
pub struct File {
    pub rules: Arc<RuleSet>,
    pub versions: Versions,
    /// What each series feeds: key and partition.
    pub feeds: Vec<Vec<(OutputKey, u16)>>,
    specs: Vec<RuleSpec>,
}

/// All files of a run, and the rules that know the outputs of all of them.
///
/// # Panics
/// When our own rules do not compile.
pub fn all(series: &[String], stores: usize, partitions: u16, finals: &[String]) -> (Vec<File>, Arc<RuleSet>) {
    let app = |name: &str| rule(name, r"^app\.([a-z0-9]+)\.([a-z0-9]+)\.req$", "by.{1}.{function}", 10, stores);
    let host = |name: &str, hosts: &str| {
        rule(name, &format!(r"^app\.([a-z0-9]+)\.({hosts})\.req$"), "top.{2}.{function}", 30, stores)
    };
    let total = rule("all", r"^app\.", "all.{function}", 20, stores);
    let files = [
        vec![app("by-app"), host("by-host", "[a-z0-9]+")],
        // Another order, another name, one more.
        vec![total.clone(), host("hosts", "[a-z0-9]+"), app("by-app")],
        // One is gone, one takes less.
        vec![host("by-host", "h[01]"), total],
    ];
    let map = pool::map_version(partitions, finals);
    let files: Vec<File> = files.into_iter().map(|specs| file(specs, series, partitions, map)).collect();
    let knows_all = remembering(&files, 0, &[1, 2]);
    (files, knows_all)
}

/// The rules of one file, with what is remembered of others, latest first.
///
/// # Panics
/// When our own rules do not compile.
pub fn remembering(files: &[File], in_force: FileId, former: &[FileId]) -> Arc<RuleSet> {
    if former.is_empty() {
        return Arc::clone(&files[in_force].rules);
    }
    let mut rules = compile(&files[in_force].specs);
    let known = former.iter().try_for_each(|file| rules.remember(&files[*file].specs));
    known.unwrap_or_else(|errors| panic!("our own rules: {errors:?}"));
    Arc::new(rules)
}

fn compile(specs: &[RuleSpec]) -> RuleSet {
    RuleSet::compile(specs).unwrap_or_else(|errors| panic!("our own rules: {errors:?}"))
}

fn file(specs: Vec<RuleSpec>, series: &[String], partitions: u16, map: u32) -> File {
    let rules = compile(&specs);
    let feed = |name: &String| {
        let mut keys = Vec::new();
        rules.outputs(name.as_bytes(), &mut keys);
        keys.into_iter().map(|key| (key.clone(), partition_of(&key, partitions))).collect()
    };
    File {
        feeds: series.iter().map(feed).collect(),
        versions: Versions { rules: rules.version(), map },
        rules: Arc::new(rules),
        specs,
    }
}

fn rule(name: &str, regex: &str, output: &str, interval: u32, stores: usize) -> RuleSpec {
    RuleSpec {
        name: name.to_owned(),
        selector: Selector::Regex(regex.to_owned()),
        interval,
        grace: 5,
        functions: vec![Function::Sum, Function::Count, Function::Min, Function::Max, Function::Last],
        output: output.to_owned(),
        group_by: Vec::new(),
        drop_raw: true,
        completeness: false,
        to: (0..stores).collect(),
    }
}
