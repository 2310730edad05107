//! The store of a final node and the order of its log. The log thread alone writes; a shard that begins reads.

use std::collections::BTreeMap;

use engine::final_node::Mark;
use store::{Store, StoreError};

use super::journal::{Journal, decode_marks, encode_marks};

/// A small file beside the store that says how far each partition is: durable when `write` returns.
pub(crate) trait Witness: Send {
    fn read(&self) -> Option<Vec<u8>>;
    /// # Errors
    /// When it cannot be made durable.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError>;
}

/// The store, whether it is new, and what was repaired, as sentences.
pub(crate) type Opened = (Box<dyn Store>, bool, Vec<String>);
/// Opens the store that the log is in; each call fences the handles given before.
type Open = Box<dyn Fn() -> Result<Opened, StoreError> + Send>;

/// How to come to the store, and the witness beside it, if there is one.
pub(crate) struct Opener {
    pub(crate) open: Open,
    pub(crate) witness: Option<Box<dyn Witness>>,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opener")
    }
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Disk {
    opener: Opener,
    store: Option<Box<dyn Store>>,
    /// Made with the first opening; what is in the log's hand has its ordinals from here.
    journal: Option<Journal>,
    repairs: Vec<String>,
    /// How often a store was found empty that had been in use: its directory was deleted, or it was set aside.
    births: u64,
}

impl Disk {
    pub(crate) fn new(opener: Opener) -> Disk {
        Disk { opener, store: None, journal: None, repairs: Vec::new(), births: 0 }
    }

    /// Opens the store anew; who still holds the old handle is fenced.
    pub(crate) fn open(&mut self) -> Result<(), StoreError> {
        self.store = None;
        let (mut store, is_new, repairs) = (self.opener.open)()?;
        self.repairs.extend(repairs);
        if self.journal.is_none() {
            let marks = self.opener.witness.as_ref().and_then(|witness| witness.read());
            let marks = marks.map(|bytes| decode_marks(&bytes)).unwrap_or_default();
            self.journal = Some(Journal::open(store.as_mut(), marks)?);
        } else if is_new {
            self.births += 1;
        }
        self.store = Some(store);
        Ok(())
    }

    /// Whether there is a handle.
    pub(crate) fn is_open(&self) -> bool {
        self.store.is_some() && self.journal.is_some()
    }

    /// Works with both, opening the store first where nobody has yet.
    pub(crate) fn work<T>(
        &mut self,
        work: impl FnOnce(&mut dyn Store, &mut Journal) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if !self.is_open() {
            self.open()?;
        }
        match (&mut self.store, &mut self.journal) {
            (Some(store), Some(journal)) => work(store.as_mut(), journal),
            (None, _) | (_, None) => Err(StoreError::ReadOnly { cause: "the store is not open".into() }),
        }
    }

    /// Reads, opening the store first where nobody has yet.
    pub(crate) fn read<T>(
        &mut self,
        work: impl FnOnce(&Disk, &dyn Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if !self.is_open() {
            self.open()?;
        }
        match &self.store {
            Some(store) => work(&*self, store.as_ref()),
            None => Err(StoreError::ReadOnly { cause: "the store is not open".into() }),
        }
    }

    /// How far each partition is, as the witness and the log know it.
    pub(crate) fn mark(&self, partition: u16) -> Option<Mark> {
        self.journal.as_ref().and_then(|journal| journal.marks().get(&partition).copied())
    }

    /// Writes the marks into the witness file.
    pub(crate) fn testify(&mut self) -> Result<(), StoreError> {
        let empty = BTreeMap::new();
        let marks = encode_marks(self.journal.as_ref().map_or(&empty, Journal::marks));
        self.opener.witness.as_mut().map_or(Ok(()), |witness| witness.write(&marks))
    }

    /// How often a store was found empty that had been in use: what is in memory is to be written again.
    pub(crate) fn births(&self) -> u64 {
        self.births
    }

    /// What opening had to repair, since the last question.
    pub(crate) fn take_repairs(&mut self) -> Vec<String> {
        std::mem::take(&mut self.repairs)
    }
}
