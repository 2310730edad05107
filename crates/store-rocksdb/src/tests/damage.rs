//! Flipped bytes, cut files and missing files, everywhere in a store of numbered records.

use super::*;
use std::collections::BTreeSet;

const LANES: Options = Options { families: b"\x80\x81", ..AMPLE };
const RECORDS: u32 = 600;

fn key(n: u32) -> Vec<u8> {
    [&[0x80 + n.to_le_bytes()[0] % 2], &n.to_be_bytes()[..]].concat()
}

fn value(n: u32) -> Vec<u8> {
    n.to_be_bytes().repeat(500)
}

/// A store as a killed process leaves it: records in tables, in two logs, and books over all.
struct Base {
    folder: Folder,
    /// The records that lie in this table, by the name of its file.
    tables: BTreeMap<String, BTreeSet<u32>>,
    /// For each record that lies in a log: the file and where it ends.
    logged: BTreeMap<u32, (String, u64)>,
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

impl Base {
    fn new() -> Base {
        let folder = Folder::new();
        let path = folder.0.join("live");
        let mut store = RocksStore::open(&path, LANES).unwrap();
        let mut logged = BTreeMap::new();
        for n in 0..RECORDS {
            let mut batch = put(&key(n), &value(n));
            batch.put(b"books", &n.to_be_bytes());
            store.write(&batch).unwrap();
            let log = newest_file(&path, "log");
            logged.insert(n, (name_of(&log), fs::metadata(&log).unwrap().len()));
            if n == 150 || n == 300 {
                store.switch(&[None, Some(0x80), Some(0x81)], true).unwrap();
            }
            if n == 450 {
                store.switch(&[Some(0x80)], true).unwrap();
            }
        }
        store.sync().unwrap();
        let mut tables = BTreeMap::new();
        for file in store.live_files().unwrap() {
            let (first, last) = (file.start_key.unwrap(), file.end_key.unwrap());
            let held: BTreeSet<u32> = (0..RECORDS).filter(|n| (&first..=&last).contains(&&key(*n))).collect();
            logged.retain(|n, _| !held.contains(n));
            tables.insert(file.name.trim_start_matches('/').to_owned(), held);
        }
        copy_store(&path, &folder.0.join("base"));
        drop(store);
        assert_eq!(files(&folder.0.join("base"), "log").len(), 2, "logs");
        assert!(tables.len() >= 5, "{tables:?}");
        Base { folder, tables, logged }
    }

    /// A copy to damage.
    fn copy(&self) -> PathBuf {
        let path = self.folder.0.join("case/store");
        if path.parent().unwrap().exists() {
            fs::remove_dir_all(path.parent().unwrap()).unwrap();
        }
        fs::create_dir(path.parent().unwrap()).unwrap();
        copy_store(&self.folder.0.join("base"), &path);
        path
    }

    fn file(&self, prefix: &str, suffix: &str) -> Vec<String> {
        let entries = fs::read_dir(self.folder.0.join("base")).unwrap();
        let mut names: Vec<String> = entries.map(|entry| name_of(&entry.unwrap().path())).collect();
        names.retain(|name| name.starts_with(prefix) && name.ends_with(suffix));
        names.sort();
        names
    }

    /// The records that may be missing when `file` is damaged from byte `at` on.
    fn endangered(&self, file: &str, at: u64) -> BTreeSet<u32> {
        let in_log = self.logged.iter().filter(|(_, (log, end))| log == file && *end > at).map(|(n, _)| *n);
        self.tables.get(file).into_iter().flatten().copied().chain(in_log).collect()
    }
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip,
    Zeros,
    Cut,
    Remove,
}

fn inflict(damage: Damage, path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    let at = usize::try_from(at).unwrap();
    match damage {
        Damage::Flip => bytes[at] ^= 0x55,
        Damage::Zeros => bytes.iter_mut().skip(at).take(3_000).for_each(|byte| *byte = 0),
        Damage::Cut => bytes.truncate(at),
        Damage::Remove => {
            fs::remove_file(path).unwrap();
            return;
        }
    }
    fs::write(path, bytes).unwrap();
}

struct Outcome {
    missing: BTreeSet<u32>,
    holes: Vec<Hole>,
    findings: Vec<Finding>,
}

/// Opens a damaged store, and again, and reads all that can be read of it; what is read must be right.
#[track_caller]
fn read_damaged(path: &Path, what: &str) -> Outcome {
    let Opened { mut store, findings } = open(path, &LANES).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut missing: BTreeSet<u32> = (0..RECORDS).collect();
    let holes = store.salvage(&[0x80], END, &mut |found, bytes| {
        let n = u32::from_be_bytes(found[1..].try_into().unwrap());
        assert!(found == key(n) && bytes == value(n), "{what}: record {n} is wrong");
        assert!(missing.remove(&n), "{what}: record {n} twice");
        ControlFlow::Continue(())
    });
    let holes = holes.unwrap_or_else(|error| panic!("{what}: salvage: {error}"));
    // It works on, for what is new.
    store.write(&put(&[&[0x81], &[0xff; 4][..]].concat(), &u32::MAX.to_be_bytes().repeat(500))).unwrap();
    store.sync().unwrap();
    drop(store);
    for finding in &findings {
        let aside = finding.put_aside.as_ref();
        assert!(aside.is_none_or(|path| path.is_dir()), "{what}: {finding}");
    }
    let again = open(path, &LANES).unwrap_or_else(|error| panic!("{what}, opened again: {error}"));
    assert_eq!(again.findings, [], "{what}: damage is found once");
    assert!(again.store.get(&[0x81, 0xff, 0xff, 0xff, 0xff]).unwrap().is_some());
    Outcome { missing, holes, findings }
}

#[track_caller]
fn check(base: &Base, damage: Damage, file: &str, at: u64) -> Outcome {
    let path = base.copy();
    let what = format!("{damage:?} of {file} at {at}");
    inflict(damage, &path.join(file), at);
    let outcome = read_damaged(&path, &what);
    let at = if matches!(damage, Damage::Remove) { 0 } else { at };
    let endangered = base.endangered(file, at);
    let seen: Vec<String> = outcome.findings.iter().map(ToString::to_string).collect();
    let unexpected: Vec<u32> = outcome.missing.difference(&endangered).copied().collect();
    assert!(unexpected.is_empty(), "{what}: records {unexpected:?} were not in what is damaged; {seen:?}");
    // The end of a log may be missing without a word, as after a power cut; nothing else.
    let newest_log = base.file("", ".log").pop().unwrap();
    let is_silent = outcome.holes.is_empty() && outcome.findings.is_empty();
    assert!(
        outcome.missing.is_empty() || !is_silent || file == newest_log,
        "{what}: {:?} are missing silently",
        outcome.missing
    );
    outcome
}

fn kinds(outcome: &Outcome) -> Vec<What> {
    outcome.findings.iter().map(|finding| finding.what).collect()
}

#[test]
fn each_kind_of_damage_is_overcome_by_the_gentlest_step() {
    let base = Base::new();
    let [old_log, new_log] = base.file("", ".log").try_into().unwrap();
    let table = base.tables.iter().find(|(_, held)| held.len() > 50).unwrap().0.clone();
    let list = base.file("MANIFEST-", "").pop().unwrap();
    let outcome = check(&base, Damage::Flip, "IDENTITY", 3);
    assert_eq!((kinds(&outcome), outcome.missing.len()), (vec![], 0));
    for (damage, at) in [(Damage::Remove, 0), (Damage::Cut, 0), (Damage::Flip, 10)] {
        let outcome = check(&base, damage, "CURRENT", at);
        assert_eq!((kinds(&outcome), outcome.missing.len()), (vec![What::PointerRestored], 0), "{damage:?} CURRENT");
    }
    for (damage, at) in [(Damage::Remove, 0), (Damage::Cut, 0), (Damage::Flip, 200), (Damage::Zeros, 5)] {
        let outcome = check(&base, damage, &list, at);
        assert_eq!(outcome.missing.len(), 0, "{damage:?} of {list}: {:?}", outcome.findings);
    }
    let outcome = check(&base, Damage::Flip, &table, 30_000);
    assert_eq!((kinds(&outcome), outcome.holes.len()), (vec![], 1), "one block of a table");
    assert!((1..=4).contains(&outcome.missing.len()), "{:?}", outcome.missing);
    let outcome = check(&base, Damage::Remove, &table, 0);
    assert_eq!((kinds(&outcome), &outcome.missing), (vec![What::Rebuilt], &base.tables[&table]), "a table");
    for log in [&old_log, &new_log] {
        let outcome = check(&base, Damage::Flip, log, 40_000);
        assert_eq!(kinds(&outcome), [What::LogDamaged], "{log}");
        assert!((1..=20).contains(&outcome.missing.len()), "{:?}", outcome.missing);
    }
    let outcome = check(&base, Damage::Remove, &old_log, 0);
    assert_eq!(kinds(&outcome), [What::LogDamaged], "a log is missing");
}

/// A disk that fails while a store is opened must not have it put aside.
#[test]
fn a_place_that_cannot_be_read_is_damage_and_one_that_cannot_be_written_is_not() {
    let check = |text: &str, expected: bool| {
        let error = StoreError::Io { doing: "open", source: io::Error::other(text.to_owned()) };
        assert_eq!(crate::open::is_damage(&error), expected, "{text}");
    };
    for reading in
        ["While pread offset 0 len 53", "While reading file sequentially", "While open a file for random read"]
    {
        check(&format!("IO error: Input/output error: {reading}: /x/000010.sst"), true);
    }
    for writing in ["While appending to file", "While fdatasync", "While fsync", "While open a file for appending"] {
        check(&format!("IO error: {writing}: /x/000012.log: Input/output error"), false);
    }
    check("IO error: While open a file for random read: /x/000010.sst: Too many open files", false);
    check("IO error: No such file or directory: While open a file: /x/000010.sst", true);
}

#[test]
fn a_list_cut_anywhere_loses_no_record() {
    let base = Base::new();
    let list = base.file("MANIFEST-", "").pop().unwrap();
    let length = fs::metadata(base.folder.0.join("base").join(&list)).unwrap().len();
    for at in (0..=length).step_by(usize::try_from(length / 40).unwrap()) {
        let outcome = check(&base, Damage::Cut, &list, at);
        assert_eq!(outcome.missing.len(), 0, "cut at {at} of {length}: {:?}", outcome.findings);
    }
}

/// The shared family is rewritten again and again, so that its damage is met by work in the background.
#[test]
fn damage_met_in_the_background_is_overcome_by_opening_again() {
    let folder = Folder::new();
    let path = folder.0.join("stores/store");
    let mut store = open(&path, &LANES).unwrap().store;
    for n in 0..500 {
        store.write(&put(n.to_string().as_bytes(), &value(1_000 + n))).unwrap();
        store.write(&put(&key(n), &value(n))).unwrap();
    }
    store.switch(&[None, Some(0x80)], true).unwrap();
    store.db.wait_for_compact(&WaitForCompactOptions::default()).unwrap();
    drop(store);
    damage_values(&path, &[(b"250", &value(1_250))]);
    let mut store = open(&path, &LANES).unwrap().store;
    let mut last = None;
    for n in 0..10_000_u32 {
        last = store.write(&put(b"251", &n.to_be_bytes())).and_then(|()| store.switch(&[None], true)).err();
        if last.is_some() {
            break;
        }
    }
    let met = last.unwrap();
    assert!(matches!(met, StoreError::Corrupt { .. }), "{met}");
    drop(store);
    let Opened { mut store, findings } = open(&path, &LANES).unwrap();
    assert_eq!(findings.iter().map(|finding| finding.what).collect::<Vec<_>>(), [What::Rebuilt], "{findings:?}");
    let lost: Vec<u32> = (0..500).filter(|n| store.get(n.to_string().as_bytes()).unwrap().is_none()).collect();
    assert!(lost.contains(&250) && lost.len() <= 4, "{lost:?}");
    assert!((0..500).all(|n| store.get(&key(n)).unwrap().is_some_and(|found| found == value(n))));
    store.write(&put(b"251", b"on")).unwrap();
    store.switch(&[None], true).unwrap();
    drop(store);
    assert_eq!(open(&path, &LANES).unwrap().findings, []);
}

#[test]
fn a_store_that_is_damaged_throughout_is_put_aside_and_starts_empty() {
    let base = Base::new();
    let path = base.copy();
    for entry in fs::read_dir(&path).unwrap() {
        fs::write(entry.unwrap().path(), [0x55; 5_000]).unwrap();
    }
    let outcome = read_damaged(&path, "all files overwritten");
    assert_eq!(outcome.missing.len(), 600);
    let worst = outcome.findings.iter().max_by_key(|finding| finding.what).unwrap();
    assert!(worst.what >= What::Rebuilt, "{worst}");
    let aside = worst.put_aside.clone().unwrap();
    assert!(name_of(&aside).starts_with("corrupt-") && aside.join("CURRENT").exists(), "{}", aside.display());
}

/// 100 places, 1,000 with `SPILLWAY_DAMAGE=1000`. A failure names damage, file and place.
#[test]
fn damage_in_random_places_takes_no_other_record_with_it() {
    let places = std::env::var("SPILLWAY_DAMAGE").map_or(100, |text| text.parse().unwrap());
    let base = Base::new();
    let mut names: Vec<String> = ["MANIFEST-", "CURRENT"].iter().flat_map(|prefix| base.file(prefix, "")).collect();
    names.extend(base.file("", ".log"));
    names.extend(base.tables.keys().cloned());
    let mut state = 20_261_126_u64;
    let mut random = |limit: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    };
    let mut missing = 0;
    for _ in 0..places {
        let file = &names[usize::try_from(random(names.len() as u64)).unwrap()];
        let damage = [Damage::Flip, Damage::Flip, Damage::Zeros, Damage::Cut, Damage::Remove];
        let damage = damage[usize::try_from(random(5)).unwrap()];
        let length = fs::metadata(base.folder.0.join("base").join(file)).unwrap().len();
        missing += check(&base, damage, file, random(length)).missing.len();
    }
    println!("{places} places, {missing} records missing of {}", places * u64::from(RECORDS));
}

/// A store of batches that lie in the log, in more than one block each and in several families.
struct Logged {
    folder: Folder,
    batches: Vec<Vec<(Vec<u8>, Vec<u8>)>>,
    /// For each batch: the file, where it begins and where it ends.
    spans: Vec<(String, u64, u64)>,
    /// Batches before this one lie in a table besides, as far as they are of family 0x80.
    switched_at: Option<usize>,
}

impl Logged {
    fn new(seed: u64, count: u32, switch_at: Option<u32>) -> Logged {
        let folder = Folder::new();
        let path = folder.0.join("live");
        let mut store = RocksStore::open(&path, LANES).unwrap();
        // The families are there before.
        store.write(&put(&[0x80], b"")).unwrap();
        store.write(&put(&[0x81], b"")).unwrap();
        // Else no family has a table, and repairing, which learns of families from tables, would drop the whole log.
        if switch_at.is_some() {
            store.switch(&[None, Some(0x80), Some(0x81)], true).unwrap();
        }
        let (mut batches, mut spans) = (Vec::new(), Vec::new());
        let mut random = random(seed);
        for n in 0..count {
            if switch_at == Some(n) {
                store.switch(&[Some(0x80)], true).unwrap();
            }
            let mut entries = Vec::new();
            for part in 0..=random(3) {
                let length = 1024 + if random(3) == 0 { random(199 << 10) } else { random(20 << 10) };
                let value: Vec<u8> = (0..=length / 8).flat_map(|_| random(u64::from(u32::MAX)).to_le_bytes()).collect();
                let family = [0x80, 0x81, 0x70][usize::try_from(random(3)).unwrap()];
                entries.push(([&[family], &n.to_be_bytes()[..], &part.to_be_bytes()].concat(), value));
            }
            let mut batch = put(b"books", &n.to_be_bytes());
            entries.iter().for_each(|(key, value)| batch.put(key, value));
            let length_of = |log: &Path| fs::metadata(log).unwrap().len();
            let begin = length_of(&newest_file(&path, "log"));
            store.write(&batch).unwrap();
            let log = newest_file(&path, "log");
            spans.push((name_of(&log), begin, length_of(&log)));
            batches.push(entries);
        }
        store.sync().unwrap();
        copy_store(&path, &folder.0.join("base"));
        drop(store);
        let logs = 1 + usize::from(switch_at.is_some());
        assert_eq!(files(&folder.0.join("base"), "log").len(), logs, "all is still in the log");
        Logged { folder, batches, spans, switched_at: switch_at.map(|n| n as usize) }
    }

    /// A copy of which a bit of `log` is flipped at `at`, and what the log is then.
    fn flipped(&self, log: &str, at: u64) -> (PathBuf, Vec<u8>) {
        let path = self.folder.0.join("case/store");
        if path.exists() {
            fs::remove_dir_all(path.parent().unwrap()).unwrap();
        }
        fs::create_dir(path.parent().unwrap()).unwrap();
        copy_store(&self.folder.0.join("base"), &path);
        let mut bytes = fs::read(path.join(log)).unwrap();
        bytes[usize::try_from(at).unwrap()] ^= 1 << (at % 8);
        fs::write(path.join(log), &bytes).unwrap();
        (path, bytes)
    }

    /// Flips a bit of `log` at `at` and opens; how many batches are missing, and what was found.
    fn flip(&self, log: &str, at: u64) -> (usize, Vec<Finding>) {
        let (path, bytes) = self.flipped(log, at);
        let Opened { store, findings } = open(&path, &LANES).unwrap();
        let aside = findings.iter().find_map(|finding| finding.put_aside.as_ref());
        assert!(aside.is_none_or(|aside| fs::read(aside.join(log)).unwrap() == bytes), "what was found is kept");
        let (mut missing, mut last) = (0, None);
        for (n, (entries, (file, begin, end))) in self.batches.iter().zip(&self.spans).enumerate() {
            let is_in_table = |key: &[u8]| key[0] == 0x80 && self.switched_at.is_some_and(|first| n < first);
            let (in_table, in_log): (Vec<_>, Vec<_>) = entries.iter().partition(|(key, _)| is_in_table(key));
            let is_there = |(key, value): &&(Vec<u8>, Vec<u8>)| {
                let found = store.get(key).unwrap();
                assert!(found.as_ref().is_none_or(|found| found == value), "{log} at {at}: batch {n} is wrong");
                found.is_some()
            };
            assert!(in_table.iter().all(is_there), "{log} at {at}: batch {n} is in a table");
            let there = in_log.iter().filter(|entry| is_there(entry)).count();
            assert!(there == 0 || there == in_log.len(), "{log} at {at}: {there} entries of batch {n}");
            if there > 0 {
                last = Some(n);
            } else if !in_log.is_empty() {
                missing += 1;
                let block_end = (at / (32 << 10) + 1) * (32 << 10);
                let may_be_missing = file == log && *end > at && *begin < block_end;
                assert!(may_be_missing, "{log} at {at}: batch {n} in {file} from {begin} to {end}; {findings:?}");
            }
        }
        let books = store.get(b"books").unwrap().map(|books| u32::from_be_bytes(books[..].try_into().unwrap()));
        assert!(books.map(|books| books as usize) >= last, "{log} at {at}: {books:?} and not {last:?}");
        drop(store);
        assert_eq!(open(&path, &LANES).unwrap().findings, [], "{log} at {at}");
        (missing, findings)
    }

    /// Damages each log in `places` places, one after the other.
    fn flip_everywhere(&self, places: u64) {
        let mut random = random(7);
        for log in files(&self.folder.0.join("base"), "log") {
            let (length, log) = (fs::metadata(&log).unwrap().len(), name_of(&log));
            let (mut missing, mut silent) = (0, 0);
            for place in 0..places {
                let at = length * place / places + random(length / places);
                let (lost, findings) = self.flip(&log, at);
                missing += lost;
                let kinds: Vec<What> = findings.iter().map(|finding| finding.what).collect();
                // In the last block it may look like what a power cut leaves.
                let may_be_silent = at / (32 << 10) == (length - 1) / (32 << 10);
                silent += usize::from(kinds.is_empty());
                assert!(kinds == [What::LogDamaged] || kinds.is_empty() && may_be_silent, "{at}: {findings:?}");
            }
            println!("{log}, {length} bytes: {places} places, {missing} batches missing, {silent} times silently");
            assert!(missing > 0);
        }
    }
}

fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |limit| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    }
}

#[test]
fn damage_in_a_log_takes_only_what_lies_in_its_block() {
    Logged::new(20_261_126, 60, None).flip_everywhere(40);
}

#[test]
fn damage_in_one_of_two_logs_takes_only_what_lies_in_its_block() {
    Logged::new(2_611, 60, Some(30)).flip_everywhere(20);
}

/// What is left to do when a log cannot be mended.
#[test]
fn a_log_that_ends_at_its_damage_keeps_what_stands_before() {
    let logged = Logged::new(1_126, 30, None);
    let log = newest_file(&logged.folder.0.join("base"), "log");
    let (length, log) = (fs::metadata(&log).unwrap().len(), name_of(&log));
    let mut kept = 0;
    for at in (1_000..length).step_by(usize::try_from(length / 20).unwrap()) {
        let (path, _) = logged.flipped(&log, at);
        let store = RocksStore::open_tuned(&path, LANES, Care::LogEndsAtDamage).unwrap();
        for (entries, (_, _, end)) in logged.batches.iter().zip(&logged.spans) {
            for (key, value) in entries {
                let found = store.get(key).unwrap();
                assert_eq!(found.is_some(), *end <= at, "damage at {at}, a record that ends at {end}");
                assert!(found.is_none_or(|found| found == value));
            }
            kept += usize::from(*end <= at);
        }
    }
    assert!(kept > 200, "{kept}");
}
