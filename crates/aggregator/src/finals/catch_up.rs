//! How fast stores may catch up with the windows that they missed, as the operator has set it: kept in a file of the data
//! directory, replaced as a whole. A file that cannot be read is as good as none; the cluster file's `replay.rate` counts.
//! What changed is in the log of changes beside it ([`node::AuditLog`]); what changes nothing is in neither.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use admin::Refusal;
use admin_api::{AuditEntry, ReplayChange, ReplaySettings, SourceSettings};
use engine::rate;
use engine::replay::{ONE_SOURCE, known_sources, unknown_source};
use engine::time::UnixSeconds;
use node::AuditLog;
use runtime::replace_file;
use tracing::warn;

use crate::partial_lock as lock;

const FILE: &str = "replay.json";

/// See the module's head.
#[derive(Debug)]
pub(crate) struct CatchUp {
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    settings: ReplaySettings,
    log: Option<AuditLog>,
}

impl CatchUp {
    /// From the file in the data directory `data`; `rate`: what counts without one, points per second.
    pub(crate) fn open(data: &Path, rate: u64) -> CatchUp {
        let file = data.join(FILE);
        let read = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let settings = read.unwrap_or_else(|| ReplaySettings { rate, adaptive: false, ..ReplaySettings::default() });
        let log = Some(AuditLog::open(data, "replay"));
        CatchUp { file: Some(file), state: Mutex::new(State { settings, log }) }
    }

    /// For tests: kept nowhere.
    #[cfg(test)]
    pub(crate) fn unkept(rate: u64) -> CatchUp {
        let settings = ReplaySettings { rate, ..ReplaySettings::default() };
        CatchUp { file: None, state: Mutex::new(State { settings, log: None }) }
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

    /// Changes what is asked, and keeps it; in force when this returns. What was in force already is not among the changes
    /// that come back. `sources`: those there are.
    ///
    /// # Errors
    /// Says what is wrong and what is in force; nothing has changed then.
    pub(crate) fn change(
        &self,
        change: &ReplayChange,
        sources: &[String],
        now: UnixSeconds,
    ) -> Result<Vec<AuditEntry>, Refusal> {
        let mut state = lock(&self.state);
        check(change, sources, &state.settings)?;
        let (mut settings, audit) = applied(&state.settings, change, now);
        if audit.is_empty() {
            return Ok(audit);
        }
        settings.version += 1;
        (settings.changed_at, settings.changed_by) = (u64::from(now.0), change.by.clone());
        if let Some(file) = &self.file {
            let text = serde_json::to_vec_pretty(&settings).map_err(|error| error.to_string());
            let kept = text.and_then(|text| replace_file(file, &text).map_err(|error| error.to_string()));
            kept.map_err(|error| Refusal::unavailable(format!("keep the settings: {error}")))?;
        }
        state.settings = settings;
        if let Some(log) = &mut state.log {
            for entry in &audit {
                if let Err(error) = log.note(entry.clone()) {
                    warn!(%error, "a change of the catch-up is in force, and not in the audit log on disk");
                }
            }
        }
        Ok(audit)
    }

    /// What operators changed, latest first.
    pub(crate) fn audit(&self) -> Vec<AuditEntry> {
        lock(&self.state).log.as_ref().map(AuditLog::entries).unwrap_or_default()
    }
}

/// The settings with a change that was checked, and what is other than before.
fn applied(before: &ReplaySettings, change: &ReplayChange, now: UnixSeconds) -> (ReplaySettings, Vec<AuditEntry>) {
    let mut settings = before.clone();
    let mut audit = Vec::new();
    let mut note = |what: String, old: String, new: String| {
        if old != new {
            audit.push(AuditEntry { at: u64::from(now.0), by: change.by.clone(), what, old, new });
        }
    };
    match &change.source {
        None => {
            settings.rate = change.rate.unwrap_or(before.rate);
            settings.paused = change.paused.unwrap_or(before.paused);
            note("rate".into(), before.rate.to_string(), settings.rate.to_string());
            note("paused".into(), before.paused.to_string(), settings.paused.to_string());
        }
        Some(source) => {
            let old = before.sources.get(source).cloned().unwrap_or_default();
            let new = SourceSettings { rate: change.rate.or(old.rate), paused: change.paused.unwrap_or(old.paused) };
            let shown = |rate: Option<u64>| rate.map_or_else(|| "none".to_owned(), |rate| rate.to_string());
            note(format!("{source}.rate"), shown(old.rate), shown(new.rate));
            note(format!("{source}.paused"), old.paused.to_string(), new.paused.to_string());
            settings.sources.insert(source.clone(), new);
        }
    }
    (settings, audit)
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
        let changed = catch_up.change(&pause, std::slice::from_ref(&source), NOW).expect("a known source");
        assert_eq!(changed.len(), 1);
        for catch_up in [catch_up, CatchUp::open(&dir, 50_000)] {
            // Said again, it is no news: no version, no entry.
            for again in [&change, &pause] {
                assert_eq!(catch_up.change(again, std::slice::from_ref(&source), NOW).expect("as before"), []);
            }
            assert_eq!(catch_up.rates(&source), (7, Some(0)));
            let audit: Vec<String> = catch_up.audit().into_iter().map(|entry| entry.what).collect();
            assert_eq!((catch_up.settings().version, audit), (2, vec![format!("{source}.paused"), "rate".into()]));
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
