//! The store on disk, whatever has happened to it, and the witness file beside it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use engine::final_node::keys;
use node::StartError;
use store::{Disposition, Store, StoreError, WriteBatch};
use store_rocksdb::Options;

use super::disk::{Opened, Opener, Witness};

/// Format of the store: of its keys and of everything in them that has no version of its own.
const FORMAT: u8 = 2;
const FORMAT_PLACE: &str = "the store's format record";
const LAYOUT_PLACE: &str = "the store's list of final nodes";

/// What the store may take beyond the quota, so that checkpoints, which free space, always find room: a tenth, at least
/// 256 MiB.
const ROOM_MIN: u64 = 256 << 20;
/// What is left free on the file system, for opening again and for freeing space.
const FREE_BYTES: u64 = 64 << 20;

/// `layout`: see [`check_layout`]. How to come to the store in `<data>/final`, which is opened at once, and to `<data>/final.witness`.
///
/// # Errors
/// When a newer program wrote it or it belongs to another list of final nodes (nothing is changed then), another process has it, or it may not be written. Anything else
/// is tried again by the log thread.
pub(crate) fn opener(data: &Path, quota_bytes: u64, layout: &str) -> Result<Opener, StartError> {
    let path = data.join("final");
    let options = Options {
        quota_bytes: quota_bytes.saturating_add((quota_bytes / 10).max(ROOM_MIN)),
        families: keys::FAMILIES,
        reserve_bytes: FREE_BYTES,
    };
    let layout = layout.to_owned();
    let opened = match open(&path, &options, &layout) {
        Ok(opened) => Some(opened),
        Err(error @ (StoreError::InUse { .. } | StoreError::Unwritable { .. })) => return Err(refused(&path, &error)),
        Err(error) if is_foreign(&error) => return Err(refused(&path, &error)),
        Err(_) => None,
    };
    // The first life of the log takes what was opened here.
    let first = Mutex::new(opened);
    let open = move || match first.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(opened) => Ok(opened),
        None => open(&path, &options, &layout),
    };
    // Without it, what a wholly lost store held would not be counted: no reason not to start.
    let witness = store_rocksdb::Witness::open(&data.join("final.witness")).ok();
    Ok(Opener { open: Box::new(open), witness: witness.map(|witness| Box::new(witness) as Box<dyn Witness>) })
}

impl Witness for store_rocksdb::Witness {
    fn read(&self) -> Option<Vec<u8>> {
        store_rocksdb::Witness::read(self)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        store_rocksdb::Witness::write(self, bytes)
    }
}

fn refused(path: &Path, error: &StoreError) -> StartError {
    let path = path.display();
    if let StoreError::Corrupt { detail, .. } = error
        && is_foreign(error)
    {
        // It is not damaged, as this error would say otherwise.
        return StartError::Config(format!("{path}: {detail}"));
    }
    StartError::Config(format!("{path}: {error}"))
}

/// Written by a newer program, or for other final nodes.
fn is_foreign(error: &StoreError) -> bool {
    matches!(error, StoreError::Corrupt { place, .. } if [FORMAT_PLACE, LAYOUT_PLACE].contains(&place.as_str()))
}

fn open(path: &Path, options: &Options, layout: &str) -> Result<Opened, StoreError> {
    let store_rocksdb::Opened { mut store, findings } = store_rocksdb::open(path, options)?;
    let is_new = check_format(&mut store)?;
    check_layout(&mut store, layout)?;
    Ok((Box::new(store), is_new, findings.iter().map(|finding| format!("the final store: {finding}")).collect()))
}

/// A new store gets a format record; an old one must have ours. Whether it is new.
pub(super) fn check_format(store: &mut dyn Store) -> Result<bool, StoreError> {
    let found = match store.get(keys::FORMAT) {
        Err(error) if error.disposition() == Disposition::Escalate => None,
        other => other?,
    };
    match found.as_deref().and_then(<[u8]>::split_first) {
        Some((&FORMAT, _)) => return Ok(false),
        Some((version, program)) => {
            let program = String::from_utf8_lossy(program);
            let detail = format!("format {version} of spillway {program}; this is format {FORMAT}: run that version");
            return Err(StoreError::Corrupt { place: FORMAT_PLACE.to_owned(), detail });
        }
        None => {}
    }
    let mut batch = WriteBatch::new();
    batch.put(keys::FORMAT, &[&[FORMAT][..], env!("CARGO_PKG_VERSION").as_bytes()].concat());
    store.write(&batch)?;
    Ok(true)
}

/// The windows and the names of merged batches in a store belong to partitions that were spread over certain final nodes.
/// Under another list some of them would go on elsewhere from nothing: counted twice, or emitted as a part.
pub(super) fn check_layout(store: &mut dyn Store, layout: &str) -> Result<(), StoreError> {
    let found = match store.get(keys::LAYOUT) {
        Err(error) if error.disposition() == Disposition::Escalate => None,
        other => other?,
    };
    match found {
        Some(found) if found[..] == *layout.as_bytes() => Ok(()),
        Some(found) => {
            let found = String::from_utf8_lossy(&found);
            let detail = format!(
                "its windows are those of {found}, the cluster file says {layout}: put the old list back (see \
                 \"Changing the cluster file\" in the README)"
            );
            Err(StoreError::Corrupt { place: LAYOUT_PLACE.to_owned(), detail })
        }
        None => {
            let mut batch = WriteBatch::new();
            batch.put(keys::LAYOUT, layout.as_bytes());
            store.write(&batch)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::MemDisk;

    #[test]
    fn a_newer_format_is_refused_with_the_version_that_wrote_it_and_left_alone() {
        let disk = MemDisk::new(1 << 20);
        let mut store = disk.open();
        assert!(check_format(&mut store).expect("a new store"));
        assert!(!check_format(&mut store).expect("our own"));
        let mut batch = WriteBatch::new();
        batch.put(keys::FORMAT, b"\x099.9.9");
        store.write(&batch).expect("room");
        let error = check_format(&mut store).expect_err("newer");
        assert!(is_foreign(&error));
        assert!(error.to_string().contains("format 9 of spillway 9.9.9"), "{error}");
        assert_eq!(store.get(keys::FORMAT).expect("reads").as_deref(), Some(&b"\x099.9.9"[..]));
    }

    #[test]
    fn a_store_of_other_final_nodes_is_refused_and_left_alone() {
        let disk = MemDisk::new(1 << 20);
        let mut store = disk.open();
        check_layout(&mut store, "4 partitions over a, b").expect("a new store");
        check_layout(&mut store, "4 partitions over a, b").expect("its own");
        let error = check_layout(&mut store, "4 partitions over a, b, c").expect_err("another list");
        assert!(is_foreign(&error));
        assert!(error.to_string().contains("4 partitions over a, b, the cluster file says"), "{error}");
        assert_eq!(store.get(keys::LAYOUT).expect("reads").as_deref(), Some(&b"4 partitions over a, b"[..]));
    }
}
