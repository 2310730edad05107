//! Bytes flip and files end too early, in a spill and in a final node's data. Whatever the place: the node starts, what is
//! whole is kept, and what is gone is counted exactly. The long form is a thousand places each, against the real binaries,
//! shared out among clusters side by side: most of the time each of them waits.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::{Feed, Fleet, Sent, Sink, eventually, one_at_a_time};

use crate::{CATCH_UP, Dice, Keys, cluster, counted, dropped, form, say, spilled, up, when};

/// Something done to a file.
#[derive(Debug)]
pub(crate) enum Harm {
    Flip { file: PathBuf, at: u64, bit: u8 },
    Cut { file: PathBuf, at: u64 },
}

impl Harm {
    /// A random place of a random file, bigger files more often.
    pub(crate) fn at_random(dice: &mut Dice, files: &[(PathBuf, u64)]) -> Harm {
        let total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
        let mut at = dice.below(total.max(1));
        for (file, bytes) in files {
            if at < *bytes {
                let file = file.clone();
                let bit = 1 << dice.below(8);
                return if dice.below(2) == 0 { Harm::Flip { file, at, bit } } else { Harm::Cut { file, at } };
            }
            at -= bytes;
        }
        panic!("no file with a byte in it among {files:?}");
    }

    /// How many of `points`, written to a file at a steady rate, must outlive it: what was written before, less a fifth for
    /// what was written at once with the damaged place, and for an uneven rate.
    pub(crate) fn spares(&self, points: u64) -> u64 {
        let (Harm::Flip { file, at, .. } | Harm::Cut { file, at }) = self;
        let bytes = fs::metadata(file).expect("a file that was listed").len().max(1);
        (points * at / bytes).saturating_sub(points / 5)
    }

    /// Does it.
    pub(crate) fn inflict(&self) {
        say(&format!("{self:?}"));
        match self {
            Harm::Flip { file, at, bit } => {
                let open = OpenOptions::new().read(true).write(true).open(file).expect("a file that was listed");
                let mut byte = [0];
                open.read_exact_at(&mut byte, *at).expect("a byte there");
                open.write_all_at(&[byte[0] ^ bit], *at).expect("to write it back");
            }
            Harm::Cut { file, at } => {
                File::options().write(true).open(file).and_then(|open| open.set_len(*at)).expect("to cut a file");
            }
        }
    }
}

/// Files that hold records: logs and tables. Damage to the small files beside them (CURRENT, MANIFEST, OPTIONS) is the
/// store's own tests.
pub(crate) fn store_files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let entries = fs::read_dir(dir).expect("the store's directory");
    let mut files: Vec<(PathBuf, u64)> = entries
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let extension = Path::new(&name).extension().map(|end| end.to_string_lossy().into_owned());
            matches!(extension.as_deref(), Some("log" | "sst" | "blob"))
        })
        .map(|entry| (entry.path(), entry.metadata().map_or(0, |data| data.len())))
        .filter(|(_, bytes)| *bytes > 0)
        .collect();
    files.sort();
    files
}

pub(crate) fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).expect("to remove the damaged copy");
    }
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(status.success(), "cp -a {} {}: {status}", from.display(), to.display());
}

/// Points of one cluster.
const POINTS: u64 = 100_000;

/// Runs `damage` for clusters side by side, each with dice of its own and its share of the places.
#[track_caller]
fn side_by_side(drill: &str, damage: fn(&mut Dice, usize)) {
    let _turn = one_at_a_time();
    let mut dice = Dice::new(drill);
    let (clusters, places) = form((1, 8), (16, 63));
    std::thread::scope(|scope| {
        for _ in 0..clusters {
            let mut dice = dice.more();
            scope.spawn(move || damage(&mut dice, places));
        }
    });
    say(&format!("{drill}: {} places", clusters * places));
}

#[test]
fn drill_damage_of_a_spill_is_counted_exactly() {
    side_by_side("damage", damage_a_spill);
}

#[track_caller]
fn damage_a_spill(dice: &mut Dice, places: usize) {
    let points = POINTS;
    let keys = Keys { replay: "rate = \"500000/s\"\nlarge = 100000000", ..Keys::default() };
    let (sink, cluster) = cluster(1, 1, 1, keys);
    let mut fleet = up("damage", cluster);
    fleet.kill("partial-1");
    // Nothing may take anything away while the same spill is damaged again and again.
    fleet.kill("replayer-1");
    // Over ten seconds: what is written to disk at once is lost at once, and the first write has all that waited for an
    // eligible peer, more than a second's.
    let feed = Feed::new(fleet.cluster.graphite(), points / 10).start();
    feed.set_limit(points);
    eventually(CATCH_UP, "all of it in the spill", || {
        let pending = spilled(&fleet, "relay-1")?;
        when(pending == points, pending)
    });
    let sent = feed.finish();
    // As a kill leaves it, with records in the log; and as an orderly end leaves it, with all in tables.
    let data = fleet.data("relay-1");
    let whole = [fleet.dir().join("killed"), fleet.dir().join("stopped")];
    fleet.kill("relay-1");
    copy(&data, &whole[0]);
    fleet.restart("relay-1");
    assert_eq!(check(&fleet, points), 0, "a kill alone loses nothing of a spill");
    fleet.stop("relay-1");
    copy(&data, &whole[1]);

    let mut missing = 0;
    for place in 0..places {
        copy(&whole[place % 2], &data);
        let harm = Harm::at_random(dice, &store_files(&data.join("spill")));
        let least = harm.spares(points);
        harm.inflict();
        fleet.restart("relay-1");
        missing = check(&fleet, points);
        say(&format!("place {place}: {missing} points gone by {harm:?}"));
        assert!(
            missing <= points - least,
            "{least} points were written before the damage, {missing} of {points} are gone"
        );
        fleet.kill("relay-1");
    }
    // The last one is replayed: what was not counted as gone arrives.
    fleet.restart("relay-1");
    fleet.restart("partial-1");
    fleet.restart("replayer-1");
    fleet.settled(CATCH_UP);
    eventually(CATCH_UP, "every point that is not gone", || {
        let total = counted(&sink);
        when(total + missing == sent.lines, (total, missing, sent.lines))
    });
    fleet.end();
}

/// What is gone, after the books and every readable record have been compared.
#[track_caller]
fn check(fleet: &Fleet, points: u64) -> u64 {
    let relay = fleet.api("relay-1");
    let status = eventually(CATCH_UP, "the spill to be open and checked", || {
        let status = relay.spill()?;
        let checked = status.lanes.iter().all(|lane| !lane.checking);
        if status.mode == "ok" && checked { Ok(status) } else { Err(format!("{status:?}")) }
    });
    let (mut pending, mut gone, mut readable) = (0, 0, 0);
    for lane in &status.lanes {
        pending += lane.pending_points;
        gone += lane.dropped.values().sum::<u64>();
        let mut from = Some(lane.head);
        while let Some(at) = from {
            let page = relay.verify_spill(lane.lane, at, 500).expect("a page");
            assert_eq!(page.damaged, Vec::<String>::new(), "damage that the start did not find");
            readable += page.points;
            from = page.next;
        }
    }
    assert_eq!((pending, pending + gone), (readable, points), "readable, and all there was: {status:?}");
    gone
}

/// Points of one drill spread over half an hour of windows, all merged by the final node.
#[track_caller]
fn merged(fleet: &mut Fleet, points: u64) -> Sent {
    let spread = Feed { late_every: 2, late_by: 1_800, ..Feed::new(fleet.cluster.graphite(), 50_000) };
    let feed = spread.start();
    feed.set_limit(points);
    eventually(CATCH_UP, "all points to be sent", || when(feed.lines() == points, feed.lines()));
    let sent = feed.finish();
    fleet.settled(CATCH_UP);
    sent
}

/// One more point for each window that the store knows: each is emitted again, with what is left of it.
#[track_caller]
fn touch(to: SocketAddr, windows: &[(String, u64)]) {
    let mut text = String::new();
    for (group, at) in windows {
        text.push_str(&format!("load.{group}.touch 0 {at}\n"));
    }
    let mut client = TcpStream::connect(to).expect("the relay listens");
    client.write_all(text.as_bytes()).expect("the relay reads");
}

#[test]
fn drill_damage_of_a_final_node_is_counted_exactly() {
    side_by_side("damage_of_a_final_node", damage_a_final_node);
}

/// Points of each window as the store has them, by group and start.
fn counts(sink: &Sink) -> BTreeMap<(String, u64), u64> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    sink.look(|seen| {
        let counts = seen.points.iter().filter(|((name, _), _)| name.ends_with(".count"));
        counts
            .filter_map(|((name, at), values)| {
                Some(((name.split('.').nth(1)?.to_owned(), *at), values.last().copied()? as u64))
            })
            .collect()
    })
}

/// What does not add up, for the message of a failure: windows as they were (without their touch), and with too much.
fn odd(whole: &BTreeMap<(String, u64), u64>, now: &BTreeMap<(String, u64), u64>) -> String {
    let of = |wanted: fn(u64, u64) -> bool| -> Vec<String> {
        let some = now.iter().filter(|(window, count)| wanted(**count, whole.get(*window).copied().unwrap_or(0)));
        some.map(|((group, at), count)| format!("{group} {at}: {count}")).collect()
    };
    let (same, more, fewer) =
        (of(|now, whole| now == whole), of(|now, whole| now > whole + 1), of(|now, whole| now < whole));
    let few = |of: &[String]| of.iter().take(12).cloned().collect::<Vec<_>>().join(", ");
    format!(
        "{} without a touch: {}; {} with too much: {}; {} with less: {}",
        same.len(),
        few(&same),
        more.len(),
        few(&more),
        fewer.len(),
        few(&fewer)
    )
}

/// Waits until nothing of the touch is on its way: else it comes once more, to a node that was put back to before it. From the
/// relay, or, if it was late and so was sent twice, from the partial node, which then has the second one in its hands.
#[track_caller]
fn touch_is_durable(fleet: &Fleet, received: u64) {
    for (name, at_least) in [("relay-1", received), ("partial-1", 0)] {
        let api = fleet.api(name);
        eventually(CATCH_UP, "the touch to be durable, and no other copy of it on its way", || {
            let ledger = api.ledger()?;
            let is_through = ledger.in_hand == 0 && ledger.destinations.iter().all(|to| to.in_flight == 0);
            when(is_through && ledger.received >= at_least, ledger)
        });
    }
}

#[track_caller]
fn damage_a_final_node(dice: &mut Dice, places: usize) {
    let points = POINTS;
    let (sink, cluster) = cluster(1, 1, 1, Keys::default());
    let mut fleet = up("damage-final", cluster);
    let sent = merged(&mut fleet, points);
    eventually(CATCH_UP, "all points in the aggregates", || when(counted(&sink) == points, counted(&sink)));
    let whole_counts = counts(&sink);
    let windows: Vec<(String, u64)> = whole_counts.keys().cloned().collect();
    let data = fleet.data("final-1");
    let whole = [fleet.dir().join("killed"), fleet.dir().join("stopped")];
    fleet.kill("final-1");
    copy(&data, &whole[0]);
    fleet.restart("final-1");
    fleet.stop("final-1");
    copy(&data, &whole[1]);
    for place in 0..places {
        copy(&whole[place % 2], &data);
        let harm = Harm::at_random(dice, &store_files(&data.join("final")));
        let least = harm.spares(points);
        harm.inflict();
        let received = fleet.api("relay-1").ledger().expect("books").received;
        // Values of the place before must not be taken for those of this one.
        sink.forget_points();
        fleet.restart("final-1");
        touch(fleet.cluster.graphite(), &windows);
        touch_is_durable(&fleet, received + windows.len() as u64);
        let api = fleet.api("final-1");
        let gone = eventually(CATCH_UP, "what is left and what is counted as gone to be all there was", || {
            let (gone, left) = (dropped(&api.ledger()?), counted(&sink));
            let all = left + gone == sent.lines + windows.len() as u64;
            if all {
                return Ok(gone);
            }
            let odd = odd(&whole_counts, &counts(&sink));
            Err(format!("{left} left, {gone} gone, of {} and {} touches; {odd}", sent.lines, windows.len()))
        });
        say(&format!("place {place}: {gone} points gone by {harm:?}"));
        assert!(gone <= points - least, "{least} points were written before the damage, {gone} of {points} are gone");
        fleet.kill("final-1");
    }
    fleet.restart("final-1");
    fleet.end();
}
