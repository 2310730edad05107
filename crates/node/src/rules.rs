//! The rules in force, and those of former days: `<data>/rules.json`, replaced as a whole.
//!
//! Batches that wait in a relay's spill were made for the rules of their day, and a final node has windows of them. So every
//! node remembers the rule sets that it was started with, and tells them on over every link that batches and windows take:
//! relays to partial nodes and replayers, replayers to partial nodes, partial nodes to final nodes and back (a partial node may have
//! no disk that lasts). Whoever has a batch, or a window, thus knows its rules, also when the file changed twice before the next node was restarted.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use config::Cluster;
use engine::fold::FormerRules;
use engine::pattern::Selector;
use engine::rule::{Function, RuleSet, RuleSpec};
use engine::wire::Frame;
use link::Outgoing;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::StartError;
use crate::start_error::{io_error, listed};

/// How many sets are remembered, with the one in force.
const SETS_MAX: usize = 32;
const FORMAT: u32 = 1;

/// See the module's head.
#[derive(Debug)]
pub struct RuleBook {
    /// None: it is not kept.
    path: Option<PathBuf>,
    /// Names of the cluster's stores, in their order.
    stores: Vec<String>,
    specs: Vec<RuleSpec>,
    version: u64,
    pages: Mutex<Pages>,
    /// One writer of the file at a time.
    writing: Mutex<()>,
}

#[derive(Clone, Debug)]
struct Pages {
    /// The set in force, then former ones, latest first; those learnt from others last.
    sets: Vec<Set>,
    in_force: Arc<RuleSet>,
    former: Arc<FormerRules>,
    told: Arc<Vec<Bytes>>,
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

impl RuleBook {
    /// The rules of the cluster file, which are remembered from now on, and what `data` remembers of former ones.
    ///
    /// # Errors
    /// When the rules do not compile, when a newer program wrote the file (it is left alone), or when it can be neither
    /// read nor put aside, or not written.
    pub fn open(data: &Path, cluster: &Cluster, now: u64) -> Result<RuleBook, StartError> {
        let in_force = RuleSet::compile(&cluster.rules).map_err(|errors| listed(&errors))?;
        let path = data.join("rules.json");
        let before = read(&path, now)?;
        let stores: Vec<String> = cluster.stores.iter().map(|store| store.name.clone()).collect();
        let version = in_force.version();
        let current = Set::of(version, &cluster.rules, &stores);
        let mut sets = vec![current.clone()];
        sets.extend(before.iter().filter(|set| set.version != current.version).cloned());
        for forgotten in sets.drain(SETS_MAX.min(sets.len())..) {
            warn!(
                version = forgotten.version,
                "the oldest of {SETS_MAX} sets of rules is forgotten: batches made for it cannot be replayed here any more"
            );
        }
        let (former, told) = (Arc::default(), Arc::default());
        let book = RuleBook {
            path: Some(path),
            stores,
            specs: cluster.rules.clone(),
            version,
            pages: Mutex::new(Pages { sets: Vec::new(), in_force: Arc::new(in_force), former, told }),
            writing: Mutex::default(),
        };
        let is_news = sets != before;
        *lock(&book.pages) = book.compiled(sets)?;
        if is_news {
            book.save()?;
        }
        Ok(book)
    }

    /// A book without rules that is kept nowhere.
    pub fn blank() -> RuleBook {
        let in_force = Arc::new(RuleSet::default());
        let version = in_force.version();
        let sets = vec![Set::of(version, &[], &[])];
        RuleBook {
            path: None,
            stores: Vec::new(),
            specs: Vec::new(),
            version,
            pages: Mutex::new(Pages { sets, in_force, former: Arc::default(), told: Arc::default() }),
            writing: Mutex::default(),
        }
    }

    /// Those of the cluster file, which know the outputs of former rules, too.
    pub fn in_force(&self) -> Arc<RuleSet> {
        Arc::clone(&lock(&self.pages).in_force)
    }

    /// What batches may still be made for.
    pub fn former(&self) -> Arc<FormerRules> {
        Arc::clone(&lock(&self.pages).former)
    }

    /// Whether rules of this version are known.
    pub fn knows(&self, version: u64) -> bool {
        version == self.version || lock(&self.pages).former.contains_key(&version)
    }

    /// All sets as they are told to other nodes; what is new comes at the end.
    pub fn told(&self) -> Arc<Vec<Bytes>> {
        Arc::clone(&lock(&self.pages).told)
    }

    /// Another node told a set ([`RuleBook::told`]). Its version, when it is news. Blocks for two fsyncs then, which happens
    /// once for each change of the cluster file.
    ///
    /// # Errors
    /// Says what is not understood, or that there is no room; nothing has changed then.
    pub fn learn(&self, bytes: &[u8]) -> Result<Option<u64>, String> {
        let set: Set = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let version = set.number()?;
        if self.knows(version) {
            return Ok(None);
        }
        set.compile(&self.places())?;
        {
            let mut pages = lock(&self.pages);
            if pages.former.contains_key(&version) {
                return Ok(None);
            }
            let mut sets = pages.sets.clone();
            if sets.len() >= SETS_MAX {
                return Err(format!("{SETS_MAX} sets of rules are known already"));
            }
            sets.push(set);
            *pages = self.compiled(sets).map_err(|error| error.to_string())?;
        }
        info!(version = format!("{version:016x}"), "rules of another cluster file are known now");
        if let Err(error) = self.save() {
            warn!(%error, "what was learnt of former rules is not on disk; peers tell it again after a start");
        }
        Ok(Some(version))
    }

    fn compiled(&self, sets: Vec<Set>) -> Result<Pages, StartError> {
        let mut in_force = RuleSet::compile(&self.specs).map_err(|errors| listed(&errors))?;
        let mut former = FormerRules::new();
        let mut told = Vec::new();
        let places = self.places();
        told.extend(sets.first().and_then(|set| serde_json::to_vec(set).ok()).map(Bytes::from));
        for set in sets.iter().skip(1) {
            let specs: Vec<RuleSpec> = set.rules.iter().filter_map(|rule| rule.spec(&places)).collect();
            if let Err(errors) = in_force.remember(&specs) {
                warn!(version = set.version, ?errors, "a former rule cannot be read any more");
            }
            match set.compile(&places) {
                Ok((version, compiled)) => drop(former.insert(version, compiled)),
                Err(why) => warn!(
                    version = set.version,
                    why, "a former set of rules cannot be read any more: batches made for it cannot be replayed here"
                ),
            }
            told.extend(serde_json::to_vec(set).ok().map(Bytes::from));
        }
        Ok(Pages { sets, in_force: Arc::new(in_force), former: Arc::new(former), told: Arc::new(told) })
    }

    fn save(&self) -> Result<(), StartError> {
        let _one = lock(&self.writing);
        let kept = Kept { format: FORMAT, sets: lock(&self.pages).sets.clone() };
        let text = serde_json::to_vec_pretty(&kept).map_err(io::Error::other).map_err(io_error("rules.json"))?;
        let Some(path) = &self.path else { return Ok(()) };
        runtime::replace_file(path, &text).map_err(|error| StartError::Config(error.to_string()))
    }

    /// Where each store is in the cluster file.
    fn places(&self) -> BTreeMap<&str, usize> {
        self.stores.iter().enumerate().map(|(place, store)| (store.as_str(), place)).collect()
    }
}

/// What of a book the other end of a link has been told.
#[derive(Debug, Default)]
pub struct Teller {
    sets: AtomicUsize,
}

impl Teller {
    /// The link is a new one.
    pub fn begin(&self) {
        self.sets.store(0, Ordering::Relaxed);
    }

    /// Says what the other end has not been told.
    pub fn say(&self, book: &RuleBook, out: &mut Outgoing) {
        let told = book.told();
        let from = self.sets.swap(told.len(), Ordering::Relaxed);
        told.iter().skip(from).for_each(|set| out.frame(&Frame::Rules(set.clone())));
    }
}

/// Nothing here is left half done: what is in it is set at once.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    warn!(
        "{} could not be read ({why}); it was put aside as {}. Batches made for former rules wait until it is mended",
        path.display(),
        aside.display()
    );
    Ok(Vec::new())
}

fn aside(path: &Path, now: u64) -> PathBuf {
    path.with_file_name(format!("rules.json.damaged-{now}"))
}

impl Set {
    fn of(version: u64, specs: &[RuleSpec], stores: &[String]) -> Set {
        let rules = specs.iter().map(|spec| Rule::of(spec, stores)).collect();
        Set { version: format!("{version:016x}"), rules }
    }

    fn number(&self) -> Result<u64, String> {
        u64::from_str_radix(&self.version, 16).map_err(|error| format!("its version: {error}"))
    }

    fn compile(&self, places: &BTreeMap<&str, usize>) -> Result<(u64, Arc<RuleSet>), String> {
        let version = self.number()?;
        let spec = |rule: &Rule| rule.spec(places).ok_or_else(|| format!("rule {} has an unknown function", rule.name));
        let specs: Vec<RuleSpec> = self.rules.iter().map(spec).collect::<Result<_, String>>()?;
        let compiled = RuleSet::compile(&specs).map_err(|errors| listed(&errors).to_string())?;
        Ok((version, Arc::new(compiled)))
    }
}

impl Rule {
    fn of(spec: &RuleSpec, stores: &[String]) -> Rule {
        let store = |index: &usize| stores.get(*index).cloned();
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
