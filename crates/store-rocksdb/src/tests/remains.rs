//! What is left of a table that was cut, or that has damage where RocksDB needs it whole.

use super::*;

const LANES: Options = Options { families: b"\x80", ..AMPLE };
const RECORDS: u32 = 1_000;

fn key(n: u32) -> Vec<u8> {
    [&[0x80], &n.to_be_bytes()[..]].concat()
}

/// Of different lengths: some share a block of 4 KiB, some need more than one.
fn value(n: u32) -> Vec<u8> {
    let length = if n.is_multiple_of(50) { 9_000 } else { 100 + n as usize % 700 };
    n.to_be_bytes().repeat(length / 4)
}

struct Base {
    folder: Folder,
    /// The bytes of the table, and where in it each record ends.
    table: Vec<u8>,
    ends: Vec<usize>,
}

impl Base {
    fn new() -> Base {
        let folder = Folder::new();
        let path = folder.0.join("base");
        let mut store = RocksStore::open(&path, LANES).unwrap();
        for n in 0..RECORDS {
            let mut batch = put(&key(n), &value(n));
            batch.put(b"books", &n.to_be_bytes());
            store.write(&batch).unwrap();
        }
        // The table of records is the newer one.
        store.switch(&[None], true).unwrap();
        store.switch(&[Some(0x80)], true).unwrap();
        // In another table of the same family.
        store.write(&put(&key(RECORDS), &value(RECORDS))).unwrap();
        store.sync().unwrap();
        store.db.wait_for_compact(&WaitForCompactOptions::default()).unwrap();
        drop(store);
        // Opening again removes the logs that nobody needs.
        drop(RocksStore::open(&path, LANES).unwrap());
        let logs: u64 = files(&path, "log").iter().map(|log| fs::metadata(log).unwrap().len()).sum();
        assert!(logs < 100_000, "{logs} bytes of logs: the records are in the table only");
        let tables = files(&path, "sst").into_iter().map(|table| fs::read(table).unwrap());
        let table = tables.max_by_key(Vec::len).unwrap();
        let mut from = 0;
        let ends = (0..RECORDS).map(|n| {
            let value = value(n);
            let found = table[from..].windows(value.len()).position(|window| window == value).unwrap();
            from += found + value.len();
            from
        });
        let ends = ends.collect();
        Base { folder, table, ends }
    }

    /// How many records there are with this table in place of the whole one, after it was checked that they are the first
    /// ones or, if `with_gap`, all but some in one place.
    #[track_caller]
    fn open_with(&self, table: &[u8], with_list: bool, with_gap: bool, what: &str) -> usize {
        let path = self.folder.0.join("case/store");
        if path.exists() {
            fs::remove_dir_all(path.parent().unwrap()).unwrap();
        }
        fs::create_dir(path.parent().unwrap()).unwrap();
        copy_store(&self.folder.0.join("base"), &path);
        let tables = files(&path, "sst");
        let whole = tables.iter().max_by_key(|table| fs::metadata(table).unwrap().len()).unwrap();
        fs::write(whole, table).unwrap();
        if !with_list {
            fs::remove_file(path.join("CURRENT")).unwrap();
            for entry in fs::read_dir(&path).unwrap().map(|entry| entry.unwrap()) {
                if entry.file_name().to_string_lossy().starts_with("MANIFEST-") {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
        }
        let Opened { store, findings } = open(&path, &LANES).unwrap();
        assert_eq!(findings.iter().map(|found| found.what).collect::<Vec<_>>(), [What::Rebuilt], "{what}");
        let found: Vec<bool> = (0..RECORDS)
            .map(|n| match store.get(&key(n)).unwrap() {
                Some(found) => {
                    assert!(found == value(n), "{what}: record {n} is wrong");
                    true
                }
                None => false,
            })
            .collect();
        let borders = found.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert!(borders <= if with_gap { 2 } else { 1 }, "{what}: {borders} borders");
        assert!(store.get(&key(RECORDS)).unwrap().is_some(), "{what}: what is in another table");
        assert_eq!(store.get(b"books").unwrap().as_deref(), Some(&(RECORDS - 1).to_be_bytes()[..]), "{what}");
        found.iter().filter(|found| **found).count()
    }

    /// Records that surely lie in whole blocks before `at`.
    fn before(&self, at: usize) -> usize {
        self.ends.iter().filter(|end| **end + 14_000 <= at).count()
    }
}

#[test]
fn what_stands_before_a_cut_of_a_table_survives() {
    let base = Base::new();
    let length = base.table.len();
    for at in (1..length).step_by(length / 23).chain([100, 5_000, length - 1, length - 60]) {
        let found = base.open_with(&base.table[..at], true, false, &format!("cut at {at} of {length}"));
        assert!(found >= base.before(at), "cut at {at} of {length}: {found} of {}", base.before(at));
        assert!(found <= base.ends.iter().filter(|end| **end <= at).count());
    }
    let found = base.open_with(&base.table[..length - 1], true, false, "the last byte");
    assert_eq!(found, RECORDS as usize);
}

#[test]
fn damage_in_a_table_without_its_list_takes_its_block_and_at_most_what_stands_behind() {
    let base = Base::new();
    let length = base.table.len();
    for at in (10..length).step_by(length / 23) {
        let mut table = base.table.clone();
        table[at] ^= 0x55;
        let found = base.open_with(&table, false, true, &format!("flipped at {at} of {length}"));
        assert!(found >= base.before(at), "flipped at {at} of {length}: {found} of {}", base.before(at));
    }
}

#[test]
fn what_is_no_table_has_no_remains() {
    let base = Base::new();
    assert_eq!(crate::remains::puts(&base.table).len(), RECORDS as usize);
    assert_eq!(crate::remains::puts(&[]), []);
    assert_eq!(crate::remains::puts(&[0; 100_000]), []);
    assert_eq!(crate::remains::puts(&[0x55; 100_000]), []);
    assert_eq!(crate::remains::puts(&base.table[1..]), []);
    let mut state = 7_u64;
    for _ in 0..300 {
        let mut table = base.table[..20_000].to_vec();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = usize::try_from(state >> 33).unwrap() % table.len();
            table[at] = state.to_le_bytes()[2];
        }
        for (found, bytes) in crate::remains::puts(&table) {
            let n = u32::from_be_bytes(found[1..].try_into().unwrap());
            assert!(found == key(n) && bytes == value(n), "record {n} is wrong");
        }
    }
}
