//! Damage to the tables and the list of a store of which some families have records in the log only.

use super::*;
use crate::survey::survey;
use std::collections::BTreeSet;

const LANES: Options = Options { families: b"\x80\x81\x82", ..AMPLE };
const RECORDS: u32 = 300;

fn key(n: u32) -> Vec<u8> {
    [&[[0x80, 0x81, 0x82, 0x70][n as usize % 4]], &n.to_be_bytes()[..]].concat()
}

fn value(n: u32) -> Vec<u8> {
    n.to_be_bytes().repeat(300)
}

/// A store as a killed process leaves it: `tabled` have a table with what they held in the middle, and all else is in
/// the log. One record in ten was deleted again, one by one and as a range.
struct Base {
    folder: Folder,
    tabled: &'static [Family],
}

impl Base {
    fn new(tabled: &'static [Family]) -> Base {
        let folder = Folder::new();
        let path = folder.0.join("live");
        let mut store = RocksStore::open(&path, LANES).unwrap();
        for n in 0..RECORDS {
            let mut batch = put(&key(n), &value(n));
            batch.put(b"books", &n.to_be_bytes());
            if n % 10 == 9 {
                batch.delete(&key(n - 1));
                batch.delete_range(&key(n - 2), &[key(n - 2), vec![0]].concat());
            }
            store.write(&batch).unwrap();
            if n == RECORDS / 2 {
                store.switch(tabled, true).unwrap();
            }
        }
        store.sync().unwrap();
        store.db.wait_for_compact(&WaitForCompactOptions::default()).unwrap();
        copy_store(&path, &folder.0.join("base"));
        drop(store);
        let base = Base { folder, tabled };
        assert_eq!(files(&base.folder.0.join("base"), "sst").len(), tabled.len(), "a table each");
        base
    }

    fn copy(&self) -> PathBuf {
        let path = self.folder.0.join("case/store");
        if path.exists() {
            fs::remove_dir_all(path.parent().unwrap()).unwrap();
        }
        fs::create_dir(path.parent().unwrap()).unwrap();
        copy_store(&self.folder.0.join("base"), &path);
        path
    }

    /// Records that a table alone may hold: those before the switch, of the families that have one.
    fn is_tabled(&self, n: u32) -> bool {
        let byte = key(n)[0];
        let family = if byte == 0x70 { None } else { Some(byte) };
        n <= RECORDS / 2 && self.tabled.contains(&family)
    }

    /// Opens what was damaged and compares; what was found.
    #[track_caller]
    fn check(&self, path: &Path, may_lose_tables: bool, what: &str) -> Vec<What> {
        let Opened { store, findings } = open(path, &LANES).unwrap_or_else(|error| panic!("{what}: {error}"));
        for n in 0..RECORDS {
            let is_deleted = n % 10 == 8 || n % 10 == 7;
            let found = store.get(&key(n)).unwrap();
            match found {
                Some(found) => assert!(!is_deleted && found == value(n), "{what}: record {n}; {findings:?}"),
                None => assert!(
                    is_deleted || may_lose_tables && self.is_tabled(n),
                    "{what}: record {n} is gone; {findings:?}"
                ),
            }
        }
        let books = store.get(b"books").unwrap();
        assert_eq!(books.as_deref(), Some(&(RECORDS - 1).to_be_bytes()[..]), "{what}; {findings:?}");
        drop(store);
        assert_eq!(open(path, &LANES).unwrap().findings, [], "{what}: damage is found once");
        findings.iter().map(|finding| finding.what).collect()
    }
}

const TABLED: [&[Family]; 4] = [&[], &[None], &[Some(0x81)], &[None, Some(0x80), Some(0x81), Some(0x82)]];

#[test]
fn a_damaged_table_takes_nothing_from_the_log() {
    for tabled in TABLED {
        let base = Base::new(tabled);
        for table in files(&base.folder.0.join("base"), "sst") {
            let length = fs::metadata(&table).unwrap().len();
            for cut in [0, 1, length / 2, length - 1] {
                let path = base.copy();
                let table = path.join(table.file_name().unwrap());
                fs::OpenOptions::new().write(true).open(&table).unwrap().set_len(cut).unwrap();
                let what = format!("{} of {tabled:?} cut at {cut}", table.display());
                assert_eq!(base.check(&path, true, &what), [What::Rebuilt], "{what}");
            }
            for from_end in [10, 200] {
                let path = base.copy();
                let table = path.join(table.file_name().unwrap());
                let mut bytes = fs::read(&table).unwrap();
                let at = bytes.len() - from_end;
                bytes[at] ^= 0x55;
                fs::write(&table, bytes).unwrap();
                base.check(&path, true, &format!("{} of {tabled:?} flipped at {at}", table.display()));
            }
            let path = base.copy();
            fs::remove_file(path.join(table.file_name().unwrap())).unwrap();
            let what = format!("{} of {tabled:?} removed", table.display());
            assert_eq!(base.check(&path, true, &what), [What::Rebuilt], "{what}");
        }
    }
}

#[test]
fn a_damaged_list_takes_nothing_at_all() {
    for tabled in TABLED {
        let base = Base::new(tabled);
        let path = base.copy();
        fs::remove_file(path.join("CURRENT")).unwrap();
        assert_eq!(base.check(&path, false, "CURRENT removed"), [What::PointerRestored]);
        let entries = fs::read_dir(base.folder.0.join("base")).unwrap().map(|entry| entry.unwrap().path());
        let list = entries.max_by_key(|path| path.to_string_lossy().contains("MANIFEST-")).unwrap();
        let list = list.file_name().unwrap().to_owned();
        for with_pointer in [true, false] {
            let path = base.copy();
            fs::remove_file(path.join(&list)).unwrap();
            if !with_pointer {
                fs::remove_file(path.join("CURRENT")).unwrap();
            }
            assert_eq!(base.check(&path, false, "list removed"), [What::Rebuilt]);
        }
        let length = fs::metadata(base.folder.0.join("base").join(&list)).unwrap().len();
        for at in (0..length).step_by(usize::try_from(length / 30).unwrap()) {
            let path = base.copy();
            fs::OpenOptions::new().write(true).open(path.join(&list)).unwrap().set_len(at).unwrap();
            base.check(&path, false, &format!("list of {tabled:?} cut at {at} of {length}"));
            let path = base.copy();
            let mut bytes = fs::read(path.join(&list)).unwrap();
            bytes[usize::try_from(at).unwrap()] ^= 0x55;
            fs::write(path.join(&list), bytes).unwrap();
            base.check(&path, false, &format!("list of {tabled:?} flipped at {at} of {length}"));
        }
    }
}

#[test]
fn a_sound_list_names_every_family_of_the_log() {
    for tabled in TABLED {
        let base = Base::new(tabled);
        let path = base.copy();
        let found = survey(&path).unwrap();
        assert_eq!((found.list_damage, found.unlisted), (None, BTreeSet::new()), "{tabled:?}");
        assert_eq!(base.check(&path, false, "no damage"), []);
        // The list is written anew at each opening.
        assert_eq!(survey(&path).unwrap().list_damage, None, "{tabled:?}, opened again");
    }
}

/// A log and a table are damaged: what is whole of the log is there.
#[test]
fn a_damaged_log_beside_a_damaged_table_gives_what_is_whole_of_it() {
    let base = Base::new(&[Some(0x80)]);
    let path = base.copy();
    let table = newest_file(&path, "sst");
    fs::OpenOptions::new().write(true).open(&table).unwrap().set_len(100).unwrap();
    let log = files(&path, "log").remove(0);
    let mut bytes = fs::read(&log).unwrap();
    bytes[100_000] ^= 1;
    fs::write(&log, &bytes).unwrap();
    let Opened { store, findings } = open(&path, &LANES).unwrap();
    assert_eq!(findings.iter().map(|finding| finding.what).collect::<Vec<_>>(), [What::Rebuilt], "{findings:?}");
    let lost: Vec<u32> = (0..RECORDS)
        .filter(|n| n % 10 != 8 && n % 10 != 7 && !base.is_tabled(*n))
        .filter(|n| store.get(&key(*n)).unwrap().is_none())
        .collect();
    // A block of 32 KiB holds some 24 batches.
    assert!(
        (1..=26).contains(&lost.len()) && lost.iter().max().unwrap() - lost.iter().min().unwrap() <= 26,
        "{lost:?}"
    );
    assert_eq!(store.get(b"books").unwrap().as_deref(), Some(&(RECORDS - 1).to_be_bytes()[..]));
}
