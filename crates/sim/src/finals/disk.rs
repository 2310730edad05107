//! A final node's log and its disk: open, recover, write, sync; and its books, which are the log's.

use super::*;

impl FinalNode {
    pub(super) fn open(&mut self, cx: &mut Cx<'_>) -> Result<(), StoreError> {
        let mut store = cx.disk.store.open();
        if self.journal.is_none() {
            let marks = cx.disk.witness.as_deref().map(decode_marks).unwrap_or_default();
            self.journal = Some(Journal::open(&mut store, marks)?);
        }
        self.store = Some(store);
        Ok(())
    }

    pub(super) fn recover(&mut self, cx: &mut Cx<'_>) -> Result<(), StoreError> {
        let (Some(store), Some(journal)) = (&self.store, &self.journal) else { return Ok(()) };
        let names: Vec<String> = (0..self.senders.count()).map(|target| format!("carbon-{target}")).collect();
        let mark = |number: u16| journal.marks().get(&number).copied();
        let recovered = recover::partitions(&self.mine, &names, store, &mark, &|| ())?;
        let recovered = recovered.unwrap_or_else(|error| panic!("a store of our own format: {error}"));
        for (partition, findings) in recovered {
            found(cx, partition.number(), &findings);
            cx.truth.recovered(partition.number(), partition.mark().next);
            let owned = Owned { partition, checkpointed: cx.now, checkpoint_token: 0, durable: None };
            self.owned.push(owned);
        }
        self.say_what_is_covered();
        cx.truth.visit("final recovered");
        Ok(())
    }

    /// The log thread: takes what has come, writes it, and has it synced after a while.
    pub(super) fn log(&mut self, cx: &mut Cx<'_>) -> Result<(), StoreError> {
        if self.syncing || cx.now < self.retry_at {
            return Ok(());
        }
        if self.store.is_none() {
            self.open(cx)?;
        }
        if self.owned.is_empty() && self.in_hand.is_empty() && !self.mine.is_empty() {
            self.recover(cx)?;
        }
        if self.in_hand.is_empty() {
            self.in_hand = self.queue.drain(..).collect();
        }
        if self.in_hand.is_empty() {
            return Ok(());
        }
        let (Some(store), Some(journal)) = (&mut self.store, &mut self.journal) else { return Ok(()) };
        self.in_hand.iter_mut().for_each(|append| journal.take(append));
        // A power cut may come between any two writes: as for much larger ones, in some runs each append is one.
        let alone = cx.setup.tunables.evicts;
        for appends in self.in_hand.chunks(if alone { 1 } else { self.in_hand.len() }) {
            for batch in journal.batches(appends) {
                store.write(&batch)?;
            }
        }
        for append in &mut self.in_hand {
            let mut blocks = Vec::new();
            for (partition, id) in &append.loads {
                blocks.push((*partition, *id, recover::load(store, *partition, *id)?));
            }
            append.loads.clear();
            self.loaded.append(&mut blocks);
        }
        self.syncing = true;
        let (low, high) = cx.setup.tunables.final_sync_ms;
        cx.wakes.push((cx.now + Duration::from_millis(cx.rng.range(low, high)), SYNCED));
        Ok(())
    }

    pub(super) fn sync(&mut self, cx: &mut Cx<'_>) -> Result<(), StoreError> {
        let (Some(store), Some(journal)) = (&mut self.store, &mut self.journal) else { return Ok(()) };
        store.sync()?;
        for record in self.in_hand.iter().filter_map(|append| append.record.as_deref()) {
            if let Some((partition, number)) = record::place(record) {
                cx.truth.synced(partition, number);
            }
        }
        journal.done(&self.in_hand);
        journal.forget(store, self.mine.len())?;
        cx.disk.witness = Some(encode_marks(journal.marks()));
        self.mine.iter().for_each(|partition| cx.truth.witnessed(*partition));
        self.ill = false;
        let done = std::mem::take(&mut self.in_hand);
        self.synced = done.iter().map(|append| append.token).max().unwrap_or(0).max(self.synced);
        Ok(())
    }

    pub(super) fn failed(&mut self, cx: &mut Cx<'_>, error: &StoreError) {
        cx.truth.visit("log failed");
        cx.trace.say(cx.now, || format!("log of node {} failed: {error}", cx.me));
        self.ill = true;
        self.retry_at = cx.now + RETRY;
        if !matches!(error.disposition(), Disposition::FreeSpace | Disposition::RetrySoon) {
            self.store = None;
        }
    }

    pub(super) fn books(&self, cx: &mut Cx<'_>) {
        for owned in &self.owned {
            let books = owned.partition.books();
            if books.received != books.merged + books.too_old + books.corrupt + books.pending {
                cx.truth.violated("INV-1", || format!("books of partition {}: {books:?}", owned.partition.number()));
            }
        }
    }

    /// INV-1 in the end: the points that each partition says it has are those of the log.
    pub fn compare_books(&self, cx: &mut Cx<'_>) {
        self.books(cx);
        for owned in &self.owned {
            let (number, books) = (owned.partition.number(), owned.partition.books());
            let Some(log) = cx.truth.logs.get(&number).filter(|log| !log.damaged) else { continue };
            let points: u64 = log.records.values().flatten().map(|included| u64::from(included.points)).sum();
            // What was lost with a whole store is counted to the point, where anything is left that knows it.
            let lost = match log.lost {
                None => 0,
                Some(Some(lost)) => lost,
                Some(None) => books.received - books.merged,
            };
            if books.received != points + lost || books.merged != points {
                cx.truth.violated("INV-1", || format!("partition {number} was sent {points} points: {books:?}"));
            }
        }
    }
}
