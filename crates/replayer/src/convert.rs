//! Between the admin API's words and the machine's.

use admin_api::{ReplayChange, ReplaySettings, SourceSettings};
use config::{Replay as Section, ReplayStart};
use engine::rate::RATE_MAX;
use engine::replay::{Caution, Change, Control, Plan, SourceControl, Start};
use engine::time::UnixSeconds;

use crate::settings::Kept;

/// The cluster file's plan for one of so many replayers.
pub(crate) fn plan(section: &Section, replayers: usize) -> Plan {
    Plan {
        floor: section.floor.get(),
        start: start(section),
        large_points: section.large_points,
        replayers: (replayers.max(1)) as u64,
    }
}

fn start(section: &Section) -> Start {
    match section.start {
        ReplayStart::Floor => Start::Floor,
        ReplayStart::Paused => Start::Paused,
        ReplayStart::Rate => Start::Rate,
    }
}

/// What is in force at the start: an operator's word, or else the cluster file's.
pub(crate) fn control(kept: &Kept, section: &Section) -> Control {
    let settings = &kept.settings;
    let mut control = Control::new(section.rate.get(), section.adaptive);
    control.caution = Caution::restored(settings.cautious, kept.acknowledged, start(section));
    if settings.version == 0 {
        return control;
    }
    let second = |at: Option<u64>| at.and_then(|at| u32::try_from(at).ok()).map(UnixSeconds);
    let sources = settings.sources.iter();
    Control {
        rate: settings.rate.clamp(1, RATE_MAX),
        paused: settings.paused,
        adaptive: settings.adaptive,
        canary_percent: settings.canary_percent.clamp(1, 100),
        from: second(settings.from),
        to: second(settings.to),
        matching: settings.matching.clone().unwrap_or_default(),
        sources: sources
            .map(|(name, own)| (name.clone(), SourceControl { rate: own.rate, paused: own.paused }))
            .collect(),
        ..control
    }
}

/// Writes what is in force into what is kept.
pub(crate) fn put(control: &Control, kept: &mut Kept) {
    let own = |source: &SourceControl| SourceSettings { rate: source.rate, paused: source.paused };
    kept.acknowledged = control.caution == Caution::Acknowledged;
    kept.settings = ReplaySettings {
        rate: control.rate,
        paused: control.paused,
        adaptive: control.adaptive,
        canary_percent: control.canary_percent,
        from: control.from.map(|at| u64::from(at.0)),
        to: control.to.map(|at| u64::from(at.0)),
        matching: Some(control.matching.clone()).filter(|glob| !glob.is_empty()),
        sources: control.sources.iter().map(|(name, source)| (name.clone(), own(source))).collect(),
        cautious: control.is_cautious(),
        ..kept.settings.clone()
    };
}

/// A request in the machine's words.
pub(crate) fn change(asked: &ReplayChange) -> Change {
    Change {
        source: asked.source.clone(),
        rate: asked.rate,
        paused: asked.paused,
        adaptive: asked.adaptive,
        canary_percent: asked.canary_percent,
        range: asked.range.map(|range| (range.from, range.to)),
        matching: asked.matching.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_as_it_was_and_the_cluster_file_counts_until_an_operator_spoke() {
        let section = Section::default();
        let mut kept = Kept::default();
        let fresh = control(&kept, &section);
        assert_eq!(fresh, Control::new(50_000, true));
        let asked = ReplayChange {
            rate: Some(7),
            paused: Some(true),
            adaptive: Some(false),
            canary_percent: Some(5),
            matching: Some("a.**".into()),
            ..ReplayChange::default()
        };
        let (next, _) = fresh.apply(&change(&asked), &[]).unwrap();
        let own = ReplayChange { source: Some("r".into()), rate: Some(3), ..ReplayChange::default() };
        let (next, _) = next.apply(&change(&own), &["r".into()]).unwrap();
        put(&next, &mut kept);
        assert_eq!(control(&kept, &section), Control { caution: Caution::Acknowledged, ..Control::new(50_000, true) });
        kept.settings.version = 1;
        assert_eq!(control(&kept, &section), next);
    }
}
