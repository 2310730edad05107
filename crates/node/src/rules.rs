//! The rules in force, and those of former days: `<data>/rules.json`, replaced as a whole.
//!
//! Batches that wait in a relay's spill were made for the rules of their day, and a final node has windows of them. So an
//! aggregator remembers the rule sets it was started with.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use config::Cluster;
use engine::fold::FormerRules;
use engine::pattern::Selector;
use engine::rule::{Function, RuleSet, RuleSpec};
use serde::{Deserialize, Serialize};

use crate::StartError;
use crate::start_error::{io_error, listed};

/// How many sets are remembered, with the one in force.
const SETS_MAX: usize = 16;
const FORMAT: u32 = 1;

/// See the module's head.
#[derive(Debug)]
pub struct Rules {
    /// What the cluster file says; it knows the outputs of former rules, too.
    pub in_force: Arc<RuleSet>,
    /// What batches may still be made for.
    pub former: Arc<FormerRules>,
    /// The former sets as a final node tells them to partial nodes, which may have no disk that lasts; see [`read_set`].
    pub told: Vec<Bytes>,
}

#[derive(Debug, Deserialize)]
struct Head {
    format: u32,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    format: u32,
    /// Latest first.
    sets: Vec<Set>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Set {
    /// 16 hex digits: what batches carry. It cannot be computed again: places of stores are part of it.
    version: String,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Rule {
    name: String,
    #[serde(flatten)]
    selector: Pattern,
    interval: u32,
    grace: u32,
    functions: Vec<String>,
    output: String,
    group_by: Vec<String>,
    drop_raw: bool,
    completeness: bool,
    /// Names of stores.
    to: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Pattern {
    Glob(String),
    Regex(String),
}

impl Rules {
    /// The rules of the cluster file, which are remembered from now on, and what `data` remembers of former ones.
    ///
    /// # Errors
    /// When the rules do not compile, when a newer program wrote the file (it is left alone), or when it can be neither
    /// read nor put aside, or not written.
    pub fn open(data: &Path, cluster: &Cluster, now: u64) -> Result<Rules, StartError> {
        let mut in_force = RuleSet::compile(&cluster.rules).map_err(|errors| listed(&errors))?;
        let path = data.join("rules.json");
        let before = read(&path, now)?;
        let current = Set::of(cluster, &in_force);
        let mut sets = vec![current.clone()];
        sets.extend(before.iter().filter(|set| set.version != current.version).cloned());
        for forgotten in sets.drain(SETS_MAX.min(sets.len())..) {
            tracing::warn!(
                version = forgotten.version,
                "the oldest of {SETS_MAX} sets of rules is forgotten: batches made for it cannot be replayed here any more"
            );
        }
        if sets != before {
            let kept = Kept { format: FORMAT, sets: sets.clone() };
            let text = serde_json::to_vec_pretty(&kept).map_err(io::Error::other).map_err(io_error("rules.json"))?;
            runtime::replace_file(&path, &text).map_err(|error| StartError::Config(error.to_string()))?;
        }
        let mut former = FormerRules::new();
        let places = places(cluster);
        for set in sets.iter().skip(1) {
            let specs: Vec<RuleSpec> = set.rules.iter().filter_map(|rule| rule.spec(&places)).collect();
            if let Err(errors) = in_force.remember(&specs) {
                tracing::warn!(version = set.version, ?errors, "a former rule cannot be read any more");
            }
            match set.compile(&places) {
                Ok((version, compiled)) => drop(former.insert(version, compiled)),
                Err(why) => tracing::warn!(
                    version = set.version,
                    why,
                    "a former set of rules cannot be read any more: batches made for it cannot be replayed here"
                ),
            }
        }
        let told = sets.iter().skip(1).filter_map(|set| serde_json::to_vec(set).ok()).map(Bytes::from).collect();
        Ok(Rules { in_force: Arc::new(in_force), former: Arc::new(former), told })
    }
}

/// A former set that another node remembers, and the version that batches carry; good for folding, not for emitting: it names
/// no stores.
///
/// # Errors
/// Says what is not understood.
pub fn read_set(bytes: &[u8]) -> Result<(u64, Arc<RuleSet>), String> {
    let set: Set = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    set.compile(&BTreeMap::new())
}

/// What the file has; nothing where there is none. A damaged one is put aside: its loss delays batches, it does not change one.
fn read(path: &Path, now: u64) -> Result<Vec<Set>, StartError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StartError::Config(format!("read {}: {error}", path.display()))),
    };
    if let Ok(Head { format }) = serde_json::from_slice(&bytes)
        && format > FORMAT
    {
        let path = path.display();
        return Err(StartError::Config(format!(
            "{path} has format {format}, this program knows {FORMAT}: run a newer one"
        )));
    }
    let why = match serde_json::from_slice::<Kept>(&bytes) {
        Ok(kept) => return Ok(kept.sets),
        Err(error) => error,
    };
    let aside = aside(path, now);
    fs::rename(path, &aside).map_err(|error| StartError::Config(format!("put aside {}: {error}", path.display())))?;
    tracing::warn!(
        "{} could not be read ({why}); it was put aside as {}. Batches made for former rules wait until it is mended",
        path.display(),
        aside.display()
    );
    Ok(Vec::new())
}

/// Where each store is in the cluster file.
fn places(cluster: &Cluster) -> BTreeMap<&str, usize> {
    cluster.stores.iter().enumerate().map(|(place, store)| (store.name.as_str(), place)).collect()
}

fn aside(path: &Path, now: u64) -> PathBuf {
    path.with_file_name(format!("rules.json.damaged-{now}"))
}

impl Set {
    fn of(cluster: &Cluster, rules: &RuleSet) -> Set {
        let rules_of = cluster.rules.iter().map(|spec| Rule::of(cluster, spec)).collect();
        Set { version: format!("{:016x}", rules.version()), rules: rules_of }
    }

    fn compile(&self, places: &BTreeMap<&str, usize>) -> Result<(u64, Arc<RuleSet>), String> {
        let version = u64::from_str_radix(&self.version, 16).map_err(|error| format!("its version: {error}"))?;
        let spec = |rule: &Rule| rule.spec(places).ok_or_else(|| format!("rule {} has an unknown function", rule.name));
        let specs: Vec<RuleSpec> = self.rules.iter().map(spec).collect::<Result<_, String>>()?;
        let compiled = RuleSet::compile(&specs).map_err(|errors| listed(&errors).to_string())?;
        Ok((version, Arc::new(compiled)))
    }
}

impl Rule {
    fn of(cluster: &Cluster, spec: &RuleSpec) -> Rule {
        let store = |index: &usize| cluster.stores.get(*index).map(|store| store.name.clone());
        Rule {
            name: spec.name.clone(),
            selector: match &spec.selector {
                Selector::Glob(text) => Pattern::Glob(text.clone()),
                Selector::Regex(text) => Pattern::Regex(text.clone()),
            },
            interval: spec.interval,
            grace: spec.grace,
            functions: spec.functions.iter().map(|function| function.as_str().into_owned()).collect(),
            output: spec.output.clone(),
            group_by: spec.group_by.clone(),
            drop_raw: spec.drop_raw,
            completeness: spec.completeness,
            to: spec.to.iter().filter_map(store).collect(),
        }
    }

    /// With the stores that the cluster has now, by their `places`. `None`: a function that is not known.
    fn spec(&self, places: &BTreeMap<&str, usize>) -> Option<RuleSpec> {
        Some(RuleSpec {
            name: self.name.clone(),
            selector: match &self.selector {
                Pattern::Glob(text) => Selector::Glob(text.clone()),
                Pattern::Regex(text) => Selector::Regex(text.clone()),
            },
            interval: self.interval,
            grace: self.grace,
            functions: self.functions.iter().map(|name| Function::parse(name)).collect::<Option<Vec<_>>>()?,
            output: self.output.clone(),
            group_by: self.group_by.clone(),
            drop_raw: self.drop_raw,
            completeness: self.completeness,
            to: self.to.iter().filter_map(|name| places.get(name.as_str()).copied()).collect(),
        })
    }
}

#[cfg(test)]
mod tests;
