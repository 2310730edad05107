//! Work for operators that takes more than one slice, and what gives anything up: imports, discards, moves of the cursor.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use admin::{Refusal, SpillAnswer};
use admin_api::{AuditEntry, CursorAdvance, SpillDiscard, SpillImported, SpillLoss};
use bytes::Bytes;
use engine::spill::{self, Discard, Filter, Tally, records_from};
use engine::time::UnixSeconds;
use runtime::Worker;
use tokio::sync::oneshot;
use tracing::warn;

use super::session::{SLICE, Session, Trouble, WRITE_BYTES};

/// Imported records that are synced at once.
const IMPORT_BYTES: u64 = 4 << 20;
/// The entry of an import in the audit log.
const IMPORTED: &str = "spill.import";
/// The same import is asked for again within this time by who has missed the answer; later it is meant.
const RETRY_SECONDS: u64 = 600;

pub(super) type Answer = oneshot::Sender<Result<SpillAnswer, Refusal>>;

/// Work that takes more than one slice.
#[derive(Debug)]
pub(super) enum Job {
    Discard { asked: SpillDiscard, search: Box<Discard>, answer: Answer },
    Import { import: Import, answer: Answer },
}

/// An import: first everything is looked at, then everything is taken up.
#[derive(Debug)]
pub(super) struct Import {
    records: Vec<Bytes>,
    by: String,
    /// The same for the same bytes.
    fingerprint: u64,
    verified: usize,
    taken: usize,
    points: u64,
}

impl Session<'_> {
    pub(super) fn go_on(&mut self, worker: &Worker, job: Job) -> Result<(), Trouble> {
        match job {
            Job::Discard { asked, search, answer } if !answer.is_closed() => {
                self.discard(worker, asked, search, answer)
            }
            Job::Import { import, answer } if !answer.is_closed() || import.taken > 0 => {
                self.import(worker, import, answer)
            }
            // Nobody waits for it, and nothing has changed yet.
            Job::Discard { .. } | Job::Import { .. } => Ok(()),
        }
    }

    fn import(&mut self, worker: &Worker, mut import: Import, answer: Answer) -> Result<(), Trouble> {
        let end = self.now() + SLICE;
        let mut codec = std::mem::take(self.spill.codec());
        while import.verified < import.records.len() && self.now() < end {
            let checked = spill::decode(&import.records[import.verified])
                .and_then(|record| codec.verified(&record).map(|_| u64::from(record.header.points)));
            match checked {
                Ok(points) => import.points += points,
                Err(error) => {
                    *self.spill.codec() = codec;
                    let number = import.verified + 1;
                    let refusal =
                        Refusal::invalid(format!("record {number} of the import: {error}; nothing was taken up"));
                    answer.send(Err(refusal)).ok();
                    return Ok(());
                }
            }
            import.verified += 1;
        }
        *self.spill.codec() = codec;
        if import.verified < import.records.len() {
            self.jobs.push_back(Job::Import { import, answer });
            return Ok(());
        }
        let bytes: u64 = import.records.iter().map(|record| record.len() as u64).sum();
        let quota = self.thread.settings.quota_bytes;
        if import.taken == 0 && self.store.bytes().saturating_add(bytes) > quota {
            let refusal = Refusal::unavailable(format!(
                "{bytes} bytes do not fit into the quota of {quota}, of which {} are used; nothing was taken up",
                self.store.bytes()
            ));
            answer.send(Err(refusal)).ok();
            return Ok(());
        }
        if import.taken == 0 && self.is_taken_up(&import) {
            answer.send(Ok(SpillAnswer::Imported(import.answer()))).ok();
            return Ok(());
        }
        if import.taken == 0 && self.is_under_way(&import) {
            self.jobs.push_back(Job::Import { import, answer });
            return Ok(());
        }
        self.take_up(worker, import, answer)
    }

    /// Who asks the same again within [`RETRY_SECONDS`] has missed the answer, unless something was given up since.
    fn is_taken_up(&self, import: &Import) -> bool {
        let (now, mark) = (u64::from(self.thread.clock.unix().0), import.mark());
        let audit = self.thread.handle.audit();
        let mut imports = audit.iter().take_while(|entry| entry.what == IMPORTED);
        imports.any(|entry| now.saturating_sub(entry.at) <= RETRY_SECONDS && entry.new.ends_with(&mark))
    }

    fn is_under_way(&self, import: &Import) -> bool {
        let same = |job: &Job| match job {
            Job::Import { import: other, .. } => other.taken > 0 && other.fingerprint == import.fingerprint,
            Job::Discard { .. } => false,
        };
        self.jobs.iter().any(same)
    }

    /// One batch of an import.
    fn take_up(&mut self, worker: &Worker, mut import: Import, answer: Answer) -> Result<(), Trouble> {
        // What was written before must be told before: what is told of a lane is a prefix of it.
        self.sync(worker)?;
        let mut written = 0;
        while import.taken < import.records.len() && written < IMPORT_BYTES {
            let first = import.taken;
            written += self.write_imported(worker, &mut import)?;
            if import.taken == first {
                let refusal = Refusal::unavailable(format!(
                    "the spill is full: {first} of {} records were taken up",
                    import.records.len()
                ));
                answer.send(Err(refusal)).ok();
                return Ok(());
            }
        }
        if import.taken < import.records.len() {
            self.jobs.push_back(Job::Import { import, answer });
            return Ok(());
        }
        self.sync(worker)?;
        let imported = import.answer();
        let new = format!("{} batches, {} points, {}", imported.records, imported.points, import.mark());
        self.note(&import.by, IMPORTED, String::new(), new)?;
        answer.send(Ok(SpillAnswer::Imported(imported))).ok();
        Ok(())
    }

    /// One write of an import, and how many bytes it had; what is refused is not taken.
    fn write_imported(&mut self, worker: &Worker, import: &mut Import) -> Result<u64, Trouble> {
        let mut came: BTreeMap<u16, (u64, u64)> = BTreeMap::new();
        let mut taken = import.taken;
        while taken < import.records.len() && self.spill.staged_bytes() < WRITE_BYTES {
            if let Ok(record) = spill::decode(&import.records[taken]) {
                let ticket = self.spill.import(&record);
                let came = came.entry(ticket.lane).or_default();
                *came = (came.0 + u64::from(record.header.points), ticket.ordinal + 1);
            }
            taken += 1;
        }
        let bytes = self.spill.staged_bytes();
        if self.write(worker)? {
            import.taken = taken;
            for (lane, (points, next)) in came {
                self.thread.handle.tell(lane, next);
                self.thread.handle.carry(lane, points);
            }
        }
        Ok(bytes)
    }

    pub(super) fn search(&self, asked: &SpillDiscard) -> Result<Discard, Refusal> {
        let lanes = self.lanes_of(asked.destination.as_deref())?;
        let at = |time: Option<u64>, or: u32| time.map_or(or, |time| u32::try_from(time).unwrap_or(u32::MAX));
        let (from, to) = (UnixSeconds(at(asked.from, 0)), UnixSeconds(at(asked.to, u32::MAX)));
        if from > to {
            return Err(Refusal::invalid("`from` is after `to`"));
        }
        let filter = Filter::new(from, to, asked.matching.as_deref().unwrap_or_default())
            .map_err(|error| Refusal::invalid(error.to_string()))?;
        Ok(Discard::matching(&lanes, filter))
    }

    fn discard(
        &mut self,
        worker: &Worker,
        asked: SpillDiscard,
        mut search: Box<Discard>,
        answer: Answer,
    ) -> Result<(), Trouble> {
        let (end, clock) = (self.now() + SLICE, self.thread.clock);
        while let Some((lane, (from, to))) = search.range(&self.spill) {
            let (spill, live) = (&mut self.spill, &self.thread.live);
            let (mut whole, mut damaged) = (true, false);
            self.store.salvage(&from, &to, &mut |_, value| {
                damaged |= search.look(spill, value, &|origin| live.holds(origin)).is_err();
                whole = clock.now() < end;
                if whole { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            if damaged {
                self.spill.check(lane);
            }
            if !whole {
                self.jobs.push_back(Job::Discard { asked, search, answer });
                return Ok(());
            }
            search.lane_done();
        }
        let what = format!("discard {}", asked.destination.as_deref().unwrap_or("of all lanes"));
        let answered = self.give_up(worker, *search, (asked.dry_run, asked.force), &asked.by, &what)?;
        answer.send(answered).ok();
        Ok(())
    }

    pub(super) fn cursor(
        &mut self,
        worker: &Worker,
        asked: &CursorAdvance,
    ) -> Result<Result<SpillAnswer, Refusal>, Trouble> {
        let lane = match self.lanes_of(Some(&asked.destination)) {
            Ok(lanes) => lanes.first().copied().and_then(|lane| self.spill.lane(lane)),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let Some(lane) = lane else { return Ok(Err(self.no_lane())) };
        if asked.to > lane.tail {
            let (head, tail) = (lane.head, lane.tail);
            return Ok(Err(Refusal::invalid(format!(
                "{} lies behind the end of the lane: head {head}, tail {tail}",
                asked.to
            ))));
        }
        let mut mark = None;
        let (from, to) = records_from(lane.lane, asked.to);
        self.store.salvage(&from, &to, &mut |_, value| {
            mark = spill::decode(value).ok().map(|record| record.header.before);
            if mark.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let search = Discard::before(&self.spill, lane.lane, mark.unwrap_or(lane.end));
        let what = format!("cursor of {} to {}", asked.destination, asked.to);
        self.give_up(worker, search, (asked.dry_run, asked.force), &asked.by, &what)
    }

    /// Gives up what was found, or says what it would be. `how`: dry run, force.
    fn give_up(
        &mut self,
        worker: &Worker,
        search: Discard,
        how: (bool, bool),
        by: &str,
        what: &str,
    ) -> Result<Result<SpillAnswer, Refusal>, Trouble> {
        let (dry_run, force) = how;
        let (total, span) = (search.total(), search.span());
        let mut loss = SpillLoss {
            batches: total.batches,
            points: total.points,
            bytes: total.bytes,
            oldest: span.map(|(oldest, _)| u64::from(oldest.0)),
            newest: span.map(|(_, newest)| u64::from(newest.0)),
            done: false,
        };
        if dry_run {
            return Ok(Ok(SpillAnswer::Loss(loss)));
        }
        if loss.batches > 0 && !force {
            let error = format!(
                "{what} would lose {} points in {} batches: say `force` to lose them, or replay them first",
                loss.points, loss.batches
            );
            return Ok(Err(Refusal::would_lose(error, loss)));
        }
        if let Err(error) = search.apply(&mut self.spill) {
            return Ok(Err(Refusal::invalid(error.to_string())));
        }
        // Said again there is nothing left to lose, and nothing to tell of.
        if loss.batches > 0 {
            let new = format!("{} batches, {} points lost", loss.batches, loss.points);
            self.note(by, &format!("spill.{what}"), String::new(), new)?;
            warn!(node = %self.thread.settings.node, by, what, points = loss.points, "spill given up by an operator");
        }
        self.sync(worker)?;
        self.touched();
        loss.done = true;
        Ok(Ok(SpillAnswer::Loss(loss)))
    }

    /// Gives up the dead letters; they are counted as dropped already.
    pub(super) fn discard_dead(
        &mut self,
        worker: &Worker,
        asked: &SpillDiscard,
    ) -> Result<Result<SpillAnswer, Refusal>, Trouble> {
        let Tally { batches, points, bytes } = self.spill.dead_letters();
        let loss = SpillLoss { batches, points, bytes, ..SpillLoss::default() };
        if asked.dry_run {
            return Ok(Ok(SpillAnswer::Loss(loss)));
        }
        if batches > 0 && !asked.force {
            let error = format!("{batches} dead letters would be lost: say `force` to lose them, or export them first");
            return Ok(Err(Refusal::would_lose(error, loss)));
        }
        if batches == 0 {
            return Ok(Ok(SpillAnswer::Loss(SpillLoss { done: true, ..loss })));
        }
        self.delete = Some(self.spill.forget_dead());
        self.note(&asked.by, "spill.dead_letters", format!("{batches} batches, {points} points"), String::new())?;
        self.sync(worker)?;
        Ok(Ok(SpillAnswer::Loss(SpillLoss { done: true, ..loss })))
    }

    /// Keeps what an operator did.
    fn note(&mut self, by: &str, what: &str, old: String, new: String) -> Result<(), Trouble> {
        let at = self.thread.clock.unix();
        let entry = AuditEntry { at: u64::from(at.0), by: by.to_owned(), what: what.to_owned(), old, new };
        let mut batch = store::WriteBatch::new();
        super::audit::put(&mut batch, at, self.audits, &entry);
        self.audits = self.audits.wrapping_add(1);
        self.store.write(&batch)?;
        self.thread.handle.add_audit(entry);
        Ok(())
    }
}

impl Import {
    pub(super) fn new(records: Vec<Bytes>, by: String) -> Import {
        let fingerprint = spill::fingerprint(&records);
        Import { records, by, fingerprint, verified: 0, taken: 0, points: 0 }
    }

    /// Of one that was taken up.
    fn answer(&self) -> SpillImported {
        SpillImported { records: self.records.len() as u64, points: self.points }
    }

    /// What the audit log knows it by.
    fn mark(&self) -> String {
        format!("fingerprint {:016x}", self.fingerprint)
    }
}

/// The records of an export: each behind its length.
pub(super) fn split(bytes: &Bytes) -> Result<Vec<Bytes>, Refusal> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        let end = length.and_then(|length| (at + 4).checked_add(usize::try_from(length).ok()?));
        let Some(end) = end.filter(|end| *end <= bytes.len()) else {
            return Err(Refusal::invalid(format!(
                "the import is cut off after {} records; nothing was taken up",
                records.len()
            )));
        };
        records.push(bytes.slice(at + 4..end));
        at = end;
    }
    Ok(records)
}
