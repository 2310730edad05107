//! How fast stores may catch up with the windows that they missed, as the operator has set it: kept in a file of the data
//! directory, replaced as a whole. A file that cannot be read is as good as none; the cluster file's `replay.rate` counts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use admin::Refusal;
use admin_api::{AuditEntry, ReplayChange, ReplaySettings, SourceSettings};
use engine::rate;
use engine::replay::{ONE_SOURCE, known_sources, unknown_source};
use engine::time::UnixSeconds;
use runtime::replace_file;

use crate::partial_lock as lock;

const FILE: &str = "replay.json";
/// Changes that are remembered until the process ends.
const AUDIT_MAX: usize = 100;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct CatchUp {
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    settings: ReplaySettings,
    audit: Vec<AuditEntry>,
}

impl CatchUp {
    /// From the file in the data directory `data`; `rate`: what counts without one, points per second.
    pub(crate) fn open(data: &Path, rate: u64) -> CatchUp {
        let file = data.join(FILE);
        let read = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let settings = read.unwrap_or_else(|| ReplaySettings { rate, adaptive: false, ..ReplaySettings::default() });
        CatchUp { file: Some(file), state: Mutex::new(State { settings, audit: Vec::new() }) }
    }

    /// For tests: kept nowhere.
    #[cfg(test)]
    pub(crate) fn unkept(rate: u64) -> CatchUp {
        let settings = ReplaySettings { rate, ..ReplaySettings::default() };
        CatchUp { file: None, state: Mutex::new(State { settings, audit: Vec::new() }) }
    }

    /// What is in force.
    pub(crate) fn settings(&self) -> ReplaySettings {
        lock(&self.state).settings.clone()
    }

    /// The ceiling of all together, and that of one source if it has its own; 0 is a pause.
    pub(crate) fn rates(&self, source: &str) -> (u64, Option<u64>) {
        let state = lock(&self.state);
        let settings = &state.settings;
        let all = if settings.paused { 0 } else { settings.rate };
        let own = settings.sources.get(source).map(|own| if own.paused { 0 } else { own.rate.unwrap_or(u64::MAX) });
        (all, own)
    }

    /// Changes what is asked, and keeps it; in force when this returns. `sources`: those there are.
    ///
    /// # Errors
    /// Says what is wrong and what is in force; nothing has changed then.
    pub(crate) fn change(&self, change: &ReplayChange, sources: &[String], now: UnixSeconds) -> Result<(), Refusal> {
        let mut state = lock(&self.state);
        let mut settings = state.settings.clone();
        check(change, sources, &settings)?;
        let mut audit = Vec::new();
        let mut note = |what: String, old: String, new: String| {
            audit.push(AuditEntry { at: u64::from(now.0), by: change.by.clone(), what, old, new });
        };
        match &change.source {
            None => {
                if let Some(rate) = change.rate {
                    note("rate".into(), settings.rate.to_string(), rate.to_string());
                    settings.rate = rate;
                }
                if let Some(paused) = change.paused {
                    note("paused".into(), settings.paused.to_string(), paused.to_string());
                    settings.paused = paused;
                }
            }
            Some(source) => {
                let own: &mut SourceSettings = settings.sources.entry(source.clone()).or_default();
                if let Some(rate) = change.rate {
                    let old = own.rate.map_or_else(|| "none".into(), |rate| rate.to_string());
                    note(format!("{source}.rate"), old, rate.to_string());
                    own.rate = Some(rate);
                }
                if let Some(paused) = change.paused {
                    note(format!("{source}.paused"), own.paused.to_string(), paused.to_string());
                    own.paused = paused;
                }
            }
        }
        settings.version += 1;
        (settings.changed_at, settings.changed_by) = (u64::from(now.0), change.by.clone());
        if let Some(file) = &self.file {
            let text = serde_json::to_vec_pretty(&settings).map_err(|error| error.to_string());
            let kept = text.and_then(|text| replace_file(file, &text).map_err(|error| error.to_string()));
            kept.map_err(|error| Refusal::unavailable(format!("keep the settings: {error}")))?;
        }
        state.settings = settings;
        state.audit.splice(0..0, audit.into_iter().rev());
        state.audit.truncate(AUDIT_MAX);
        Ok(())
    }

    /// What operators changed since the start of the process, latest first.
    pub(crate) fn audit(&self) -> Vec<AuditEntry> {
        lock(&self.state).audit.clone()
    }
}

fn check(change: &ReplayChange, sources: &[String], settings: &ReplaySettings) -> Result<(), Refusal> {
    let own = change.source.as_ref().and_then(|source| settings.sources.get(source)?.rate);
    let in_force = rate::show(own.unwrap_or(settings.rate));
    change.rate.map_or(Ok(0), rate::check).map_err(|wrong| Refusal::invalid(wrong.in_force(in_force)))?;
    if let Some(source) = change.source.as_ref().filter(|source| !sources.contains(source)) {
        return Err(Refusal::invalid(unknown_source(source, sources)));
    }
    let elsewhere = change.adaptive.is_some()
        || change.canary_percent.is_some()
        || change.range.is_some()
        || change.matching.is_some();
    if elsewhere {
        return Err(Refusal::invalid(match change.source {
            Some(_) => format!("{ONE_SOURCE}; {}", known_sources(sources)),
            None => "the catch-up of a final node has a rate and a pause only; all else is a replayer's".to_owned(),
        }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_700_000_000);

    #[test]
    fn a_change_is_in_force_at_once_and_after_a_restart() {
        let dir = std::env::temp_dir().join(format!("spillway-catch-up-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let source = "windows:carbon/a:1".to_owned();
        let catch_up = CatchUp::open(&dir, 50_000);
        assert_eq!(catch_up.rates(&source), (50_000, None));
        let change = ReplayChange { rate: Some(7), by: "me".into(), ..ReplayChange::default() };
        catch_up.change(&change, &[], NOW).expect("a good rate");
        let pause = ReplayChange { source: Some(source.clone()), paused: Some(true), ..ReplayChange::default() };
        catch_up.change(&pause, std::slice::from_ref(&source), NOW).expect("a known source");
        for catch_up in [catch_up, CatchUp::open(&dir, 50_000)] {
            assert_eq!(catch_up.rates(&source), (7, Some(0)));
            assert_eq!(catch_up.settings().version, 2);
        }
        fs::remove_dir_all(&dir).expect("cleaned up");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_is_in_force() {
        let catch_up = CatchUp::unkept(50_000);
        for change in [
            ReplayChange { rate: Some(0), ..ReplayChange::default() },
            ReplayChange { rate: Some(u64::MAX), ..ReplayChange::default() },
            ReplayChange { source: Some("nobody".into()), paused: Some(true), ..ReplayChange::default() },
            ReplayChange { adaptive: Some(true), ..ReplayChange::default() },
        ] {
            assert!(catch_up.change(&change, &["windows:carbon/a:1".into()], NOW).is_err(), "{change:?}");
        }
        assert_eq!((catch_up.rates("x"), catch_up.settings().version, catch_up.audit().len()), ((50_000, None), 0, 0));
    }
}
