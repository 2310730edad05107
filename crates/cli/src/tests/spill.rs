//! `spillway spill` against relays whose spill is a list of records.

use std::sync::Mutex;

use admin_api::{Quarantined, SpillImported, SpillLane, SpillPage, SpillRecord, SpillStatus, SpillVerified};

use super::fake_node::{Asked, Reply, bad, good, unknown_path};
use super::*;

fn record(lane: u16, ordinal: u64) -> SpillRecord {
    SpillRecord {
        lane,
        ordinal,
        id: format!("9f3a/7/{ordinal}"),
        points: 100,
        bytes: 4_000,
        stored_bytes: 1_500,
        min: 1_699_990_000 + ordinal,
        max: 1_699_990_060 + ordinal,
        spilled_at: 1_699_993_400,
        why: "timeout".into(),
        state: "pending".into(),
    }
}

fn lane(lane: u16, destination: &str, head: u64, records: u64) -> SpillLane {
    SpillLane {
        lane,
        destination: destination.into(),
        pending_points: records * 100,
        pending_batches: records,
        pending_bytes: records * 1_500,
        head,
        tail: head + records,
        oldest: Some(1_699_990_000),
        newest: Some(1_699_999_000),
        spilled_points: 1_000_000,
        settled_points: 1_000_000 - records * 100,
        ..SpillLane::default()
    }
}

fn spill_of(node: &str, lanes: Vec<SpillLane>) -> SpillStatus {
    SpillStatus {
        node: node.into(),
        mode: "ok".into(),
        mode_since: 1_699_996_400,
        quota_bytes: 20 << 30,
        bytes: 5 << 30,
        free_bytes: 50 << 30,
        unsynced_ms: 20,
        lanes,
        ..SpillStatus::default()
    }
}

/// A number of a query.
fn number(asked: &Asked, key: &str) -> u64 {
    let query = asked.what.split_once('?').map_or("", |(_, query)| query);
    let value = query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{key} in {}", asked.what))
}

/// As an export has it: different for each record, one of them empty.
fn stored(lane: u16, ordinal: u64) -> Vec<u8> {
    let body = vec![u8::try_from(ordinal % 251).expect("small"); usize::try_from(ordinal % 7).expect("small") * 10];
    let mut out = u32::try_from(body.len() + 2).expect("small").to_le_bytes().to_vec();
    out.extend(lane.to_le_bytes());
    out.extend(body);
    out
}

/// A relay that never gives more than 40 records at once, and keeps what is imported.
fn relay(status: SpillStatus, damaged: u64) -> FakeNode {
    let imported = Mutex::new(Vec::<u8>::new());
    FakeNode::responding(move |asked| {
        let path = asked.what.split('?').next().unwrap_or_default();
        match path {
            "GET /v1/spill" => return good(&status),
            "POST /v1/spill/import" => {
                let mut all = imported.lock().expect("whole");
                all.extend(&asked.body);
                let records = count(&asked.body);
                return good(&SpillImported { records, points: records * 100 });
            }
            "GET /v1/spill/records" | "GET /v1/spill/verify" | "GET /v1/spill/export" => {}
            _ => return unknown_path(asked),
        }
        let number_of = u16::try_from(number(asked, "lane")).expect("a lane");
        let lane = status.lanes.iter().find(|lane| lane.lane == number_of).expect("a lane that there is");
        let from = number(asked, "from").max(lane.head);
        let end = lane.tail.min(from + number(asked, "limit").min(40));
        let next = (end < lane.tail).then_some(end);
        page(path, number_of, from..end, next, damaged)
    })
}

fn page(path: &str, lane: u16, ordinals: std::ops::Range<u64>, next: Option<u64>, damaged: u64) -> Reply {
    let records = ordinals.end - ordinals.start;
    match path {
        "GET /v1/spill/records" => {
            good(&SpillPage { records: ordinals.map(|ordinal| record(lane, ordinal)).collect(), next })
        }
        "GET /v1/spill/verify" => {
            let bad = ordinals.filter(|ordinal| *ordinal == damaged);
            let damaged = bad.map(|ordinal| format!("record {ordinal}: the checksum is wrong")).collect();
            good(&SpillVerified { records, points: records * 100, damaged, next })
        }
        _ => {
            let header = next.map(|next| format!("x-spillway-next: {next}\r\n")).unwrap_or_default();
            (200, header, ordinals.flat_map(|ordinal| stored(lane, ordinal)).collect())
        }
    }
}

/// Records behind their lengths.
fn count(mut bytes: &[u8]) -> u64 {
    let mut records = 0;
    while !bytes.is_empty() {
        let length = u32::from_le_bytes(bytes[..4].try_into().expect("four"));
        bytes = &bytes[4 + usize::try_from(length).expect("small")..];
        records += 1;
    }
    records
}

/// `spillway spill ARGUMENTS`
fn spill(file: &File, arguments: &[&str]) -> Said {
    let all: Vec<&str> = ["spill"].iter().chain(arguments).copied().chain(["--config", file.path()]).collect();
    spillway(&all)
}

/// A path of this test alone; nothing is there.
fn free_path(name: &str) -> String {
    let path = std::env::temp_dir().join(format!("spillway-cli-{}-{name}.spill", std::process::id()));
    fs::remove_file(&path).ok();
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn stat_shows_modes_lanes_and_what_was_put_aside() {
    let mut sick = spill_of("relay-2", vec![lane(0, "aggregate", 0, 10)]);
    (sick.mode, sick.detail) = ("disk_full".into(), "no space left on /var: free some; it goes on by itself".into());
    sick.quarantined =
        vec![Quarantined { path: "data/relay-2/corrupt-1".into(), at: 1_699_990_000, reason: "manifest".into() }];
    let mut with_gap = lane(1, "carbon/127.0.0.1:2103", 5, 3);
    with_gap.dropped = [("corrupt".to_owned(), 200), ("too_old".to_owned(), 0)].into();
    with_gap.gaps = vec![admin_api::Gap::default()];
    let checked = SpillLane { checking: true, ..lane(2, "aggregate", 7, 2) };
    let good_one = relay(spill_of("relay-1", vec![lane(0, "aggregate:final-1", 100, 5_000), with_gap, checked]), 0);
    let (sick, gone) = (relay(sick, 0), FakeNode::closed());
    let file = cluster("spill-stat", &[("relay-1", &good_one), ("relay-2", &sick), ("relay-3", &gone)]);
    let said = spill(&file, &["stat"]);
    golden("spill-stat", &said, &[(gone.address.to_string(), "ADDRESS")]);
    assert_eq!(spill(&file, &["stat", "relay-1", "--json"]).json()["nodes"][0]["spill"]["lanes"][2]["checking"], true);
    let json = spill(&file, &["stat", "relay-2", "--json"]);
    assert_eq!((json.exit, &json.json()["nodes"][0]["spill"]["mode"]), (Exit::Ok, &"disk_full".into()));
    let unknown = spill(&file, &["stat", "relay-4"]);
    let expected = "spillway: there is no relay \"relay-4\": did you mean \"relay-1\"? Known relays are relay-1, relay-2, relay-3\n";
    assert_eq!((unknown.exit, unknown.err.as_str()), (Exit::Usage, expected));
}

#[test]
fn ls_pages_through_the_lanes() {
    let lanes = vec![lane(0, "aggregate:final-1", 100, 90), lane(1, "carbon/127.0.0.1:2103", 5, 2)];
    let node = relay(spill_of("relay-1", lanes), 0);
    let file = cluster("spill-ls", &[("relay-1", &node)]);
    golden("spill-ls", &spill(&file, &["ls", "--limit", "3"]), &[]);
    let all = spill(&file, &["ls", "relay-1", "--lane", "aggregate:final-1", "--limit", "90"]);
    assert_eq!((all.exit, all.err.as_str(), all.out.lines().count()), (Exit::Ok, "", 91));
    let asked: Vec<String> = node.asked("GET /v1/spill/records?lane=0").into_iter().map(|asked| asked.what).collect();
    let pages = ["from=100&limit=3", "from=100&limit=90", "from=140&limit=50", "from=180&limit=10"];
    assert!(asked.iter().zip(pages).all(|(asked, page)| asked.ends_with(page)), "{asked:?}");
    assert_eq!(asked.len(), pages.len());
    let by_number = spill(&file, &["ls", "--lane", "1", "--json"]).json();
    assert_eq!(by_number["lanes"][0]["records"].as_array().map(Vec::len), Some(2));
    let unknown = spill(&file, &["ls", "--lane", "agregate"]);
    assert_eq!(unknown.exit, Exit::Usage);
    assert!(unknown.err.contains("known lanes are aggregate:final-1, carbon/127.0.0.1:2103"), "{}", unknown.err);
    assert_eq!(spill(&file, &["ls", "--limit", "0"]).exit, Exit::Usage);
    let checked = SpillLane { checking: true, ..lane(0, "aggregate", 0, 1) };
    let node = relay(spill_of("relay-1", vec![checked]), 0);
    let file = cluster("spill-ls-checking", &[("relay-1", &node)]);
    let said = spill(&file, &["ls"]);
    let expected = "spillway: relay-1/aggregate is being checked: what is missing in it may not be known yet\n";
    assert_eq!((said.exit, said.err.as_str()), (Exit::Ok, expected));
    assert_eq!(spill(&file, &["ls", "--json"]).json()["lanes"][0]["checking"], true);
}

#[test]
fn verify_reads_everything_and_fails_on_damage() {
    let sound = relay(spill_of("relay-1", vec![lane(0, "aggregate", 0, 123), lane(4, "carbon/a:1", 0, 0)]), u64::MAX);
    let broken = relay(spill_of("relay-2", vec![lane(0, "aggregate", 10, 100)]), 77);
    let file = cluster("spill-verify", &[("relay-1", &sound), ("relay-2", &broken)]);
    let expected = "\
relay-1: 123 records, 12300 points: good
relay-2: 100 records, 10000 points: 1 DAMAGED (ops/replay.md#damage)
  ! aggregate: record 77: the checksum is wrong
";
    let said = spill(&file, &["verify"]);
    assert_eq!((said.out.as_str(), said.err.as_str(), said.exit), (expected, "", Exit::Damaged));
    assert_eq!(sound.asked("GET /v1/spill/verify").len(), 5);
    assert_eq!(spill(&file, &["verify", "relay-1"]).exit, Exit::Ok);
    let json = spill(&file, &["verify", "--json"]);
    assert_eq!((json.exit, &json.json()["nodes"][1]["records"]), (Exit::Damaged, &100.into()));
}

#[test]
fn a_page_that_fails_or_does_not_get_on_ends_the_work_of_its_node_only() {
    let good_one = relay(spill_of("relay-1", vec![lane(0, "aggregate", 0, 50)]), u64::MAX);
    let status = spill_of("relay-2", vec![lane(0, "aggregate", 0, 50)]);
    let stuck = FakeNode::responding(move |asked| match asked.what.as_str() {
        "GET /v1/spill" => good(&status),
        what if what.contains("from=0&") => {
            good(&SpillVerified { records: 40, points: 4_000, damaged: vec![], next: Some(40) })
        }
        _ => bad(503, "the spill is being restarted: ask again"),
    });
    let status = spill_of("relay-3", vec![lane(0, "aggregate", 7, 50)]);
    let circle = FakeNode::responding(move |asked| match asked.what.as_str() {
        "GET /v1/spill" => good(&status),
        _ => good(&SpillVerified { next: Some(7), ..SpillVerified::default() }),
    });
    let nodes = [("relay-1", &good_one), ("relay-2", &stuck), ("relay-3", &circle)];
    let file = cluster("spill-stuck", &nodes);
    let said = spill(&file, &["verify"]);
    assert_eq!(said.exit, Exit::Partial);
    let expected = "\
relay-1: 50 records, 5000 points: good
relay-2: 40 records, 4000 points: good as far as it was read
relay-3: 0 records, 0 points: good as far as it was read
";
    assert_eq!(said.out, expected);
    assert!(said.err.contains("503") && said.err.contains("being restarted: ask again"), "{}", said.err);
    assert!(said.err.contains("the page after ordinal 7 begins at 7"), "{}", said.err);
}

#[test]
fn what_is_exported_from_one_relay_is_imported_by_another() {
    let lanes = vec![lane(0, "aggregate:final-1", 100, 90), lane(1, "carbon/127.0.0.1:2103", 5, 2)];
    let (from, to) = (relay(spill_of("relay-1", lanes), 0), relay(spill_of("relay-2", vec![]), 0));
    let file = cluster("spill-carry", &[("relay-1", &from), ("relay-2", &to)]);
    let path = free_path("carry");
    let said = spill(&file, &["export", "relay-1", &path]);
    let size = fs::metadata(&path).expect("is there").len();
    assert_eq!((said.exit, said.err.as_str()), (Exit::Ok, ""));
    assert!(said.out.starts_with(&format!("{path}: 92 records of 2 lanes of relay-1, ")), "{}", said.out);
    assert!(size > 1_000 && !PathBuf::from(format!("{path}.part")).exists());

    let again = spill(&file, &["export", "relay-1", &path]);
    assert_eq!(again.exit, Exit::Usage);
    assert!(again.err.contains("exists already"), "{}", again.err);

    let said = spill(&file, &["import", "relay-2", &path]);
    let expected = "relay-2: took 92 records, 9200 points, exported from relay-1 at 2023-11-14T22:13:20Z\n";
    assert_eq!((said.out.as_str(), said.err.as_str(), said.exit), (expected, "", Exit::Ok));
    let sent: Vec<u8> = to.asked("POST").into_iter().flat_map(|asked| asked.body).collect();
    let expected = (100..190).map(|ordinal| (0, ordinal)).chain((5..7).map(|ordinal| (1, ordinal)));
    let expected: Vec<u8> = expected.flat_map(|(lane, ordinal)| stored(lane, ordinal)).collect();
    assert_eq!(sent, expected);
    let json = spill(&file, &["import", "relay-2", &path, "--json"]).json();
    assert_eq!((&json["imported"]["records"], &json["from"]["cluster"]), (&92.into(), &"test".into()));

    let lane = free_path("lane");
    let one = spill(&file, &["export", "relay-1", &lane, "--lane", "carbon/127.0.0.1:2103", "--json"]).json();
    assert_eq!(one["records"], 2);
    for path in [path, lane] {
        fs::remove_file(path).expect("removes");
    }
}

#[test]
fn an_export_that_breaks_off_leaves_no_file() {
    let status = spill_of("relay-1", vec![lane(0, "aggregate", 0, 50)]);
    let node = FakeNode::responding(move |asked| match asked.what.as_str() {
        "GET /v1/spill" => good(&status),
        what if what.contains("from=0&") => page("", 0, 0..40, Some(40), 0),
        _ => bad(503, "the spill is being restarted: ask again"),
    });
    let status = spill_of("relay-2", vec![lane(0, "aggregate", 0, 50)]);
    let torn = FakeNode::responding(move |asked| match asked.what.as_str() {
        "GET /v1/spill" => good(&status),
        _ => (200, String::new(), b"\x09\0\0\0torn".to_vec()),
    });
    let gone = FakeNode::closed();
    let file = cluster("export-breaks", &[("relay-1", &node), ("relay-2", &torn), ("relay-3", &gone)]);
    let path = free_path("breaks");
    for (name, reason) in
        [("relay-1", "restarted: ask again"), ("relay-2", "inside a record"), ("relay-3", "Connection refused")]
    {
        let said = spill(&file, &["export", name, &path]);
        assert_eq!((said.exit, said.out.as_str()), (Exit::Unavailable, ""), "{}", said.err);
        assert!(said.err.contains(reason), "{}", said.err);
        assert!(!PathBuf::from(&path).exists() && !PathBuf::from(format!("{path}.part")).exists());
    }
    let nowhere = spill(&file, &["export", "relay-1", "/nonexistent/x"]);
    assert_eq!(nowhere.exit, Exit::Usage);
    assert!(nowhere.err.contains("create /nonexistent/x.part"), "{}", nowhere.err);
}

#[test]
fn a_file_that_is_not_good_is_refused_and_nothing_is_sent() {
    let node = relay(spill_of("relay-1", vec![lane(0, "aggregate", 0, 50)]), 0);
    let file = cluster("import-bad", &[("relay-1", &node)]);
    let path = free_path("bad");
    assert_eq!(spill(&file, &["export", "relay-1", &path]).exit, Exit::Ok);
    let good = fs::read(&path).expect("reads");
    let mut newer = good.clone();
    newer[8] = 2;
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for (bytes, reason) in [
        (&good[..good.len() - 1], "it is damaged at byte"),
        (&flipped, "a checksum is wrong"),
        (b"name value 1\n", "it is no export of a spill"),
        (&newer, "it is damaged at byte"),
    ] {
        fs::write(&path, bytes).expect("writes");
        let said = spill(&file, &["import", "relay-1", &path]);
        assert_eq!((said.exit, said.out.as_str()), (Exit::Refused, ""));
        assert!(said.err.contains(reason) && said.err.ends_with("; nothing was sent\n"), "{}", said.err);
        assert_eq!(fs::read(&path).expect("reads"), bytes, "the file is left as it is");
    }
    fs::write(&path, &good).expect("writes");
    let text = fs::read_to_string(file.path()).expect("reads").replace("\"test\"", "\"other\"");
    let other = File::new("import-other", &text);
    let said = spill(&other, &["import", "relay-1", &path]);
    assert_eq!(said.exit, Exit::Refused);
    assert!(said.err.contains("exported from cluster \"test\", this is \"other\""), "{}", said.err);
    assert!(node.asked("POST").is_empty());
    assert_eq!(spill(&file, &["import", "relay-1", "/nonexistent"]).exit, Exit::Usage);
    assert_eq!(spill(&file, &["import", "relay-2", &path]).exit, Exit::Usage);
    fs::remove_file(&path).expect("removes");
}

#[test]
fn an_import_that_stops_says_how_far_it_came() {
    let lanes = vec![lane(0, "aggregate", 0, 50)];
    let from = relay(spill_of("relay-1", lanes), 0);
    let taken = Mutex::new(0);
    let full = FakeNode::responding(move |asked| match asked.what.as_str() {
        "POST /v1/spill/import" => {
            let mut taken = taken.lock().expect("whole");
            *taken += 1;
            if *taken == 1 {
                good(&SpillImported { records: 40, points: 4_000 })
            } else {
                bad(400, "the quota of 20 GiB is reached")
            }
        }
        _ => unknown_path(asked),
    });
    let file = cluster("import-stops", &[("relay-1", &from), ("relay-2", &full)]);
    let path = free_path("stops");
    assert_eq!(spill(&file, &["export", "relay-1", &path]).exit, Exit::Ok);
    let said = spill(&file, &["import", "relay-2", &path]);
    assert_eq!(said.exit, Exit::Refused);
    for part in ["took 40 records, 4000 points", "Import it again", "lane aggregate: the quota of 20 GiB is reached"] {
        assert!(said.err.contains(part), "{part} in {}", said.err);
    }
    fs::remove_file(&path).expect("removes");
}
