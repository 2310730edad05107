//! Opening a store whatever has happened to it: a ladder, from the strictest to the most forgiving, on which every step
//! that was needed is a [`Finding`].
//!
//! 1. Strict: any damage is an error.
//! 2. CURRENT is written anew when the list of tables that it should name is there.
//! 3. Damaged or missing log: what is readable of it is taken. The log files are kept aside first. When RocksDB gives up
//!    on them, they are written anew with the records that are whole: lost are those of which a part lies in a damaged
//!    block of 32 KiB, at or behind the damage. When it gives up on these, too, the log ends at its first damage.
//! 4. Work in the background met damage in a table when the store was open before, and would meet it again: every entry
//!    that can be read is copied into a new store. This takes its time and, until the old one is removed, its space;
//!    when it does not succeed, step 5 follows.
//! 5. Damaged list, or missing or unreadable tables: a new list is made from all tables that can be read, in a copy
//!    (links, so that it takes no space), what stands before the damage in other tables is added, as far as it is of a
//!    family of its own, and every whole batch of the logs is written to it. The directory as it was is kept aside.
//! 6. The directory is kept aside and the store starts empty.
//!
//! Kept aside means: as `corrupt-<unix time>` in the directory that the store is in. Nobody but a person removes it; it
//! shares the space of tables with the store, so it takes more and more as the store forgets them. What is lost is
//! known to owners who number their records. A damaged block in a table is no matter of opening otherwise: see
//! [`store::Store::salvage`]. Only these refuse, at any step: the store is in use, cannot be written to, has no space
//! even without its ballast, or the machine failed otherwise (`Io`), when opening again may help. What was found is
//! then still where it was.

use crate::directory::{create_directory, lock, sync_directory, sync_parent};
use crate::mend::mend_logs;
use crate::remains;
use crate::replay;
use crate::survey::{self, Survey};
use crate::tuning::{self, Care};
use crate::{Options, RocksStore, failure};
use rocksdb::DB;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use store::{FullBy, Store, StoreError, WriteBatch};

/// A file that says that a store met damage while it was open.
pub(crate) const DAMAGED: &str = "damaged";

/// How much is copied in one batch.
const COPY_BYTES: u64 = 1 << 20;

/// An opened store, and what was wrong with it. The owner counts the findings and shows them.
#[derive(Debug)]
pub struct Opened {
    pub store: RocksStore,
    pub findings: Vec<Finding>,
}

/// One thing that was wrong with a store and was overcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub what: What,
    /// What was seen, for people.
    pub detail: String,
    /// Where what was found is kept.
    pub put_aside: Option<PathBuf>,
}

/// What was done about damage. The order is that of the loss to be expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// CURRENT was missing or wrong, and was written anew. Nothing is lost.
    PointerRestored,
    /// Opening needed the space of the ballast. Nothing is lost.
    BallastUsed,
    /// The log was damaged or incomplete: records written last may be missing, also from the middle.
    LogDamaged,
    /// The list of tables was damaged, or tables were: a new list was made from what can be read.
    Rebuilt,
    /// Nothing could be read: the store is empty.
    StartedEmpty,
}

impl What {
    /// A word for labels of metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            What::PointerRestored => "pointer_restored",
            What::BallastUsed => "ballast_used",
            What::LogDamaged => "log_damaged",
            What::Rebuilt => "rebuilt",
            What::StartedEmpty => "started_empty",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.what {
            What::PointerRestored => "the pointer to the list of tables was restored, nothing is lost",
            What::BallastUsed => "there was no space left, the ballast was removed to open",
            What::LogDamaged => "the log was damaged, what could be read of it was kept",
            What::Rebuilt => "the list of tables was rebuilt from what could be read",
            What::StartedEmpty => "nothing could be read, the store starts empty",
        })?;
        write!(f, " ({})", self.detail)?;
        self.put_aside.as_ref().map_or(Ok(()), |path| write!(f, "; what was found is kept in {}", path.display()))
    }
}

/// Opens the store in the directory `path`, which is made with its parents when it is missing, and overcomes damage.
///
/// # Errors
/// `InUse`, `Unwritable`, `Full`, `Io`: nothing was changed, and opening again may help.
pub fn open(path: &Path, options: &Options) -> Result<Opened, StoreError> {
    let mut findings = Vec::new();
    match climb(path, *options, &mut findings) {
        Err(StoreError::Full { by: FullBy::Device, .. }) if fs::remove_file(path.join("ballast")).is_ok() => {
            findings = vec![found(What::BallastUsed, "no space left on the file system", None)];
            climb(path, *options, &mut findings)
        }
        climbed => climbed,
    }
    .map(|store| Opened { store, findings })
}

fn found(what: What, detail: impl Into<String>, put_aside: Option<PathBuf>) -> Finding {
    Finding { what, detail: detail.into(), put_aside }
}

fn climb(path: &Path, options: Options, findings: &mut Vec<Finding>) -> Result<RocksStore, StoreError> {
    let system = |error| failure::of_system("open", error, path);
    finish_swap(path).map_err(system)?;
    create_directory(path).map_err(system)?;
    // Held until the end, so that nobody else opens what is being repaired.
    let held = lock(path)?;
    let survey = survey::survey(path).map_err(system)?;
    let met = fs::read_to_string(path.join(DAMAGED)).ok();
    let damage = match (&survey.list_damage, &met) {
        (Some(damage), _) | (None, Some(damage)) => damage.clone(),
        (None, None) => match open_listed(path, options, &survey, findings)? {
            Ok(store) => return Ok(store.with_lock(held)),
            Err(damage) => damage,
        },
    };
    let copied = if met.is_some() && survey.list_damage.is_none() {
        unless_of_machine(copy_readable(path, options))?
    } else {
        None
    };
    let kept = match copied {
        Some(kept) => Some(kept),
        None => unless_of_machine(rebuild(path, options))?,
    };
    if let Some(kept) = kept {
        let put_aside = put_aside(path).map_err(system)?;
        fs::rename(rebuilding(path), path).and_then(|()| sync_parent(path)).map_err(system)?;
        findings.push(found(What::Rebuilt, format!("{damage}; {kept}"), Some(put_aside)));
        let held = lock(path)?;
        match RocksStore::open_tuned(path, options, Care::LogMayBeDamaged) {
            Ok(store) => return Ok(store.with_lock(held)),
            Err(error) if is_damage(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let put_aside = put_aside(path).map_err(system)?;
    findings.push(found(What::StartedEmpty, damage, Some(put_aside)));
    create_directory(path).map_err(system)?;
    let held = lock(path)?;
    Ok(RocksStore::open_tuned(path, options, Care::Strict)?.with_lock(held))
}

/// Steps 1 to 3, when the list of tables can be believed; else what is wrong.
fn open_listed(
    path: &Path,
    options: Options,
    survey: &Survey,
    findings: &mut Vec<Finding>,
) -> Result<Result<RocksStore, String>, StoreError> {
    let system = |error| failure::of_system("open", error, path);
    if let Some(list) = &survey.other_list {
        restore_pointer(path, list).map_err(system)?;
        findings.push(found(What::PointerRestored, format!("CURRENT names {list} now"), None));
    }
    let damage = match RocksStore::open_tuned(path, options, Care::Strict) {
        Ok(store) => return Ok(Ok(store)),
        Err(error) if is_damage(&error) => detail_of(&error),
        Err(error) => return Err(error),
    };
    // Logs that the list still knows are gone, and there are tables that it does not know: what the logs held is in
    // those tables, and the list has lost its end.
    let has_lost_its_end = is_log_missing(&damage) && !survey.unlisted.is_empty();
    if has_lost_its_end || damage.contains(".sst") || damage.contains("MANIFEST-") {
        return Ok(Err(damage));
    }
    let put_aside = copy_logs_aside(path).map_err(system)?;
    let mut opened = RocksStore::open_tuned(path, options, Care::LogMayBeDamaged);
    for care in [Care::LogMayBeDamaged, Care::LogEndsAtDamage] {
        if opened.as_ref().is_err_and(is_damage) {
            // Logs that cannot be mended are taken as they are.
            match mend_logs(path).map_err(system) {
                Err(error) if !is_damage(&error) => return Err(error),
                Ok(()) | Err(_) => opened = RocksStore::open_tuned(path, options, care),
            }
        }
    }
    match opened {
        Ok(store) => {
            findings.push(found(What::LogDamaged, damage, Some(put_aside)));
            Ok(Ok(store))
        }
        Err(error) if is_damage(&error) => Ok(Err(detail_of(&error))),
        Err(error) => Err(error),
    }
}

/// RocksDB's words about what it was reading. A place that cannot be read is damage; a disk that takes no writes is not,
/// and what is on it may be there again when it does.
const READING: [&str; 5] =
    ["While reading", "While pread", "for sequentially reading", "for random read", "While prefetch"];

/// What another step of the ladder may overcome. Running out of memory or of descriptors is none of that.
pub(crate) fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Corrupt { .. } => true,
        StoreError::Io { source, .. } => {
            let text = source.to_string();
            let is_unreadable = READING.iter().any(|reading| text.contains(reading));
            text.contains("No such file or directory") || text.contains("Input/output error") && is_unreadable
        }
        StoreError::Full { .. }
        | StoreError::Busy
        | StoreError::ReadOnly { .. }
        | StoreError::Superseded
        | StoreError::InUse { .. }
        | StoreError::Unwritable { .. }
        | StoreError::Vanished { .. } => false,
    }
}

/// A step that did not succeed is passed over, except when the machine lacks something: space, a permission, memory,
/// descriptors. Another step would then only throw away what could be had later.
fn unless_of_machine(step: Result<String, StoreError>) -> Result<Option<String>, StoreError> {
    match step {
        Ok(kept) => Ok(Some(kept)),
        Err(error) if is_of_machine(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

fn is_of_machine(error: &StoreError) -> bool {
    match error {
        StoreError::Full { .. } | StoreError::Unwritable { .. } | StoreError::InUse { .. } | StoreError::Busy => true,
        // A store in which a step of its own failed: see the kind of the failure.
        StoreError::Io { source, .. } => {
            let of_rocksdb = source.get_ref().and_then(|inner| inner.downcast_ref::<rocksdb::Error>());
            let is_of_system = of_rocksdb.is_none_or(|error| error.kind() == rocksdb::ErrorKind::IOError);
            is_of_system && !is_damage(error)
        }
        StoreError::Corrupt { .. }
        | StoreError::ReadOnly { .. }
        | StoreError::Superseded
        | StoreError::Vanished { .. } => false,
    }
}

fn detail_of(error: &StoreError) -> String {
    if let StoreError::Corrupt { detail, .. } = error { detail.clone() } else { error.to_string() }
}

/// "Missing WAL with log number: 12." and "Size mismatch: WAL (log number: 12) in MANIFEST is ...".
fn is_log_missing(detail: &str) -> bool {
    detail.contains("Missing WAL") || detail.contains("Size mismatch: WAL")
}

fn restore_pointer(path: &Path, list: &str) -> io::Result<()> {
    let new = path.join("CURRENT.new");
    fs::write(&new, format!("{list}\n"))?;
    File::open(&new)?.sync_all()?;
    fs::rename(&new, path.join("CURRENT"))?;
    sync_directory(path)
}

fn rebuilding(path: &Path) -> PathBuf {
    let mut name = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    name.push(".rebuilding");
    path.with_file_name(name)
}

/// A process that died between the two renames of a rebuilding left the store under its other name.
fn finish_swap(path: &Path) -> io::Result<()> {
    let rebuilt = rebuilding(path);
    if !rebuilt.exists() {
        Ok(())
    } else if path.exists() {
        fs::remove_dir_all(&rebuilt)
    } else {
        fs::rename(&rebuilt, path).and_then(|()| sync_parent(path))
    }
}

/// Copies every entry that can be read into a store beside `path`; what was kept, for people.
fn copy_readable(path: &Path, options: Options) -> Result<String, StoreError> {
    let rebuilt = rebuilding(path);
    let copied = copy_entries(path, &rebuilt, options);
    if copied.is_err() && rebuilt.exists() {
        fs::remove_dir_all(&rebuilt).map_err(|error| failure::of_system("rebuild", error, path))?;
    }
    copied
}

fn copy_entries(path: &Path, rebuilt: &Path, options: Options) -> Result<String, StoreError> {
    let options = Options { quota_bytes: u64::MAX, reserve_bytes: 0, ..options };
    let old = RocksStore::open_tuned(path, options, Care::TablesMayBeDamaged)?;
    let mut new = RocksStore::open_tuned(rebuilt, options, Care::Strict)?;
    let (mut batch, mut entries, mut result) = (WriteBatch::new(), 0_u64, Ok(()));
    let holes = old.salvage(&[], store::END, &mut |key, value| {
        batch.put(key, value);
        entries += 1;
        if batch.bytes() < COPY_BYTES {
            return ControlFlow::Continue(());
        }
        result = new.write_patiently(&batch);
        batch.clear();
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    new.write_patiently(&batch)?;
    new.sync()?;
    Ok(format!("{entries} entries were kept, in {} places some are missing", holes.len()))
}

/// Makes a store beside `path` from all its tables and logs that can be read; what was kept, for people.
fn rebuild(path: &Path, options: Options) -> Result<String, StoreError> {
    let rebuilt = rebuilding(path);
    let kept = rebuild_in(path, &rebuilt, options);
    if kept.is_err() && rebuilt.exists() {
        fs::remove_dir_all(&rebuilt).map_err(|error| failure::of_system("rebuild", error, path))?;
    }
    kept
}

fn rebuild_in(path: &Path, rebuilt: &Path, options: Options) -> Result<String, StoreError> {
    let system = |error| failure::of_system("rebuild", error, path);
    let options = Options { quota_bytes: u64::MAX, reserve_bytes: 0, ..options };
    fs::create_dir(rebuilt).map_err(system)?;
    let is_table = |name: &str| name.ends_with(".sst");
    if copy_files(path, rebuilt, &is_table, true).map_err(system)? > 0 {
        // Without the logs: see `replay`.
        DB::repair(&tuning::options(Care::Strict), rebuilt).map_err(|error| failure::when_opening(&error, rebuilt))?;
        // What repair could not use: it is kept aside under its first name.
        let lost = rebuilt.join("lost");
        if lost.exists() {
            fs::remove_dir_all(&lost).map_err(system)?;
        }
    }
    let sound = names(rebuilt, &is_table).map_err(system)?;
    let mut store = RocksStore::open_tuned(rebuilt, options, Care::Strict)?;
    // The newest first, as only what is not there yet is written.
    let mut damaged = names(path, &is_table).map_err(system)?;
    damaged.retain(|name| !sound.contains(name));
    let mut entries = 0;
    for name in damaged.iter().rev() {
        entries += take_remains(&path.join(name), &mut store)?;
    }
    let batches = replay::replay(path, &mut |batch| store.write_patiently(batch))?;
    store.sync()?;
    drop(store);
    sync_directory(rebuilt).map_err(system)?;
    let tables = sound.len();
    Ok(format!("{tables} tables, {entries} entries of damaged ones and {batches} batches of the log were kept"))
}

/// Writes what can be read of a damaged table, as far as it was in a family of its own: its owner never deletes single
/// keys there and never reads again what it has forgotten, so that nothing comes back that should be gone.
fn take_remains(table: &Path, store: &mut RocksStore) -> Result<u64, StoreError> {
    let mut bytes = Vec::new();
    match File::open(table).and_then(|mut file| file.read_to_end(&mut bytes)) {
        // A place that the disk does not give ends it.
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::IO.raw_os_error()) => {
            return Err(failure::of_system("read a damaged table of", error, table));
        }
        Ok(_) | Err(_) => {}
    }
    let (mut batch, mut entries) = (WriteBatch::new(), 0);
    for (key, value) in remains::puts(&bytes) {
        if !store.families.is_listed(&key) || store.get(&key)?.is_some() {
            continue;
        }
        batch.put(&key, &value);
        entries += 1;
        if batch.bytes() >= COPY_BYTES {
            store.write_patiently(&batch)?;
            batch.clear();
        }
    }
    store.write_patiently(&batch)?;
    Ok(entries)
}

/// Names of the files in `path` that `wanted` takes, in their order.
fn names(path: &Path, wanted: &dyn Fn(&str) -> bool) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if wanted(&name) {
            names.insert(name);
        }
    }
    Ok(names)
}

/// Copies the files whose names `wanted` takes; by links where they are asked for and possible.
fn copy_files(from: &Path, to: &Path, wanted: &dyn Fn(&str) -> bool, by_links: bool) -> io::Result<usize> {
    let mut copied = 0;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if wanted(&entry.file_name().to_string_lossy()) {
            let copy = to.join(entry.file_name());
            if !(by_links && fs::hard_link(entry.path(), &copy).is_ok()) {
                fs::copy(entry.path(), &copy)?;
            }
            copied += 1;
        }
    }
    Ok(copied)
}

/// Opening tolerantly writes what it could read into tables and removes the logs.
fn copy_logs_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = free_name(path)?;
    fs::create_dir(&aside)?;
    // RocksDB appends to no log that it finds, so a link stays what it is.
    copy_files(path, &aside, &|name| name.ends_with(".log"), true)?;
    sync_parent(&aside)?;
    Ok(aside)
}

fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = free_name(path)?;
    fs::rename(path, &aside)?;
    // Not worth keeping, and its space may be needed.
    match fs::remove_file(aside.join("ballast")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    sync_parent(path)?;
    Ok(aside)
}

/// `corrupt-<unix time>` beside the store. A store has no clock: the time is that of the file system, which stamps a
/// new file.
fn free_name(path: &Path) -> io::Result<PathBuf> {
    let stamp = path.join("stamp");
    fs::write(&stamp, b"")?;
    let seconds = fs::metadata(&stamp)?.modified()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    fs::remove_file(&stamp)?;
    let names = (1_u32..).map(|n| if n == 1 { format!("corrupt-{seconds}") } else { format!("corrupt-{seconds}-{n}") });
    let mut paths = names.map(|name| path.with_file_name(name));
    paths.find(|path| !path.exists()).ok_or_else(|| io::Error::other("every name is taken"))
}
