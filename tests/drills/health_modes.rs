//! The operators' hands of 24 June 2019: health modes for one layer or all, one sick node taken out, and a node that was
//! away when it was ordered. Every order is in effect within a second on every node that sends, and no point is lost.

use std::time::Duration;

use admin_api::{ModeChange, NodeChange, Ordered, PoolStatus};
use testkit::{Feed, Fleet, Layer, eventually, one_at_a_time, within};

use crate::{CATCH_UP, Keys, SOON, cluster, form, no_worker_failed, nothing_is_lost, say, spilled, up, when};

/// An order is in effect after so long, as seen from every node.
const EFFECTIVE_WITHIN: Duration = Duration::from_secs(1);

/// The nodes that send to the partial layer.
fn observers(fleet: &Fleet) -> Vec<String> {
    [fleet.layer(Layer::Relay), fleet.layer(Layer::Replayer)].concat()
}

/// One node's pool of a layer.
fn pool(fleet: &Fleet, from: &str, layer: &str) -> Result<PoolStatus, String> {
    let (health, _) = fleet.api(from).health()?;
    let found = health.pools.into_iter().find(|pool| pool.layer == layer);
    found.ok_or_else(|| format!("{from} has no pool of layer {layer}"))
}

/// The word of one node, as `from` sees it.
fn standing(fleet: &Fleet, from: &str, layer: &str, node: &str) -> Result<String, String> {
    let found = pool(fleet, from, layer)?.nodes.into_iter().find(|seen| seen.node == node);
    Ok(found.ok_or_else(|| format!("{from} does not know {node}"))?.standing)
}

/// Gives an order to all nodes that run, as the CLI does, and says how long it took until `holds`.
#[track_caller]
fn ordered(
    fleet: &Fleet,
    what: &str,
    order: impl Fn(&testkit::Admin) -> Result<Ordered, String>,
    mut holds: impl FnMut() -> Result<(), String>,
) -> Duration {
    let running = fleet.names().into_iter().filter(|name| fleet.runs(name));
    for name in running {
        order(&fleet.api(&name)).expect("the node takes the order");
    }
    let took = within(SOON, what, &mut holds).expect("it holds").1;
    say(&format!("{what}: in effect on every node after {} ms", took.as_millis()));
    assert!(took <= EFFECTIVE_WITHIN, "{what} was in effect after {took:?}");
    took
}

fn mode(mode: &str, layer: Option<&str>, dry_run: bool) -> ModeChange {
    ModeChange { layer: layer.map(str::to_owned), mode: mode.to_owned(), until: None, dry_run, by: "drill".to_owned() }
}

fn by_drill() -> NodeChange {
    NodeChange { by: "drill".to_owned(), ..NodeChange::default() }
}

/// The pool of the layer is in this mode, as seen from all of `from`.
fn in_mode(fleet: &Fleet, from: &[String], layer: &str, wanted: &str) -> Result<(), String> {
    from.iter().try_for_each(|name| {
        let pool = pool(fleet, name, layer)?;
        when(pool.mode == wanted, pool)
    })
}

/// Every node in every pool of the layer is as `wanted` says, as seen from all of `from`.
fn all_stand(fleet: &Fleet, from: &[String], layer: &str, wanted: &str) -> Result<(), String> {
    for name in from {
        let pool = pool(fleet, name, layer)?;
        when(pool.nodes.iter().all(|node| node.standing == wanted), pool)?;
    }
    Ok(())
}

#[test]
fn drill_health_modes_are_in_effect_within_a_second_and_lose_nothing() {
    let _turn = one_at_a_time();
    let keys = Keys { more: "[health]\nproof = \"4s\"\nrecover = \"4s\"\n", ..Keys::default() };
    let (sink, cluster) = cluster(2, 3, 1, keys);
    let mut fleet = up("health-modes", cluster);
    let feed = Feed::new(fleet.cluster.graphite(), form(5_000, 50_000)).start();
    let observers = observers(&fleet);

    // A start is lenient; canaries prove every node, and the layer becomes strict by itself.
    eventually(SOON * 2, "proof", || all_stand(&fleet, &observers, "partial", "proven"));
    let relay_1 = pool(&fleet, "relay-1", "partial").expect("a pool");
    assert!(relay_1.nodes.iter().all(|node| node.canaries_acked >= 4), "{relay_1:?}");
    eventually(SOON, "owners", || all_stand(&fleet, &fleet.layer(Layer::Partial), "final", "owner"));

    // One command for all layers, and what was shown before it is what it does.
    let shown = fleet.api("relay-1").change_mode(&mode("lenient", None, true)).expect("a preview");
    in_mode(&fleet, &observers, "partial", "auto").expect("a dry run changes nothing");
    let lenient = mode("lenient", None, false);
    let holds = || all_stand(&fleet, &observers, "partial", "link_up");
    ordered(&fleet, "mode lenient for all layers", |node| node.change_mode(&lenient), holds);
    let words = |pools: &[PoolStatus]| -> Vec<String> {
        pools.iter().flat_map(|pool| &pool.nodes).map(|node| node.standing.clone()).collect()
    };
    let now = pool(&fleet, "relay-1", "partial").expect("a pool");
    assert_eq!(words(&shown.pools), words(&[now]));
    let again = fleet.api("relay-1").change_mode(&lenient).expect("an answer");
    assert_eq!(again.changes, [], "the same order again changes nothing");
    let strict = mode("strict", Some("partial"), false);
    let holds = || in_mode(&fleet, &observers, "partial", "strict");
    ordered(&fleet, "mode strict for one layer", |node| node.change_mode(&strict), holds);

    // A node is away when another is drained, and it hears of it when it is back.
    fleet.kill("partial-3");
    let is_out = |fleet: &Fleet, from: &[String]| -> Result<(), String> {
        for name in from {
            let word = standing(fleet, name, "partial", "partial-2")?;
            when(word == "drained" || word == "floor", (name, word))?;
        }
        Ok(())
    };
    ordered(
        &fleet,
        "drain of one node",
        |node| node.change_node("partial-2", "drain", &by_drill()),
        || is_out(&fleet, &observers),
    );
    fleet.restart("partial-3");
    // Each node that was told stamped the order itself; which stamp is the latest goes around, so both sides are asked again.
    eventually(SOON, "the node that was away to know the orders", || {
        let (its, digest) = (fleet.api("partial-3").modes()?.digest, fleet.api("relay-1").modes()?.digest);
        when(its == digest, (its, digest))
    });
    eventually(SOON * 2, "the drained node to be out everywhere", || {
        observers.iter().try_for_each(|name| {
            let word = standing(&fleet, name, "partial", "partial-2")?;
            when(word == "drained", (name, word))
        })
    });
    let quiet = fleet.api("partial-2").ledger().expect("books").received;
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(fleet.api("partial-2").ledger().expect("books").received, quiet, "a drained node gets no points");

    // An order to one node reaches all: from relay-2 over the links.
    fleet.api("relay-2").change_node("partial-2", "undrain", &by_drill()).expect("the node takes the order");
    eventually(SOON, "the order to go around", || {
        fleet.names().iter().try_for_each(|name| {
            let known = fleet.api(name).orders()?;
            when(known.first().is_some_and(|latest| latest.what == "drain/partial-2" && latest.new == "active"), name)
        })
    });

    // A final node is held off: its points wait on the relays' disks, and come back.
    let is_held_off = || all_stand(&fleet, &fleet.layer(Layer::Partial), "final", "drained");
    ordered(&fleet, "drain of a final node", |node| node.change_node("final-1", "drain", &by_drill()), is_held_off);
    eventually(SOON, "a spill", || {
        let pending = spilled(&fleet, "relay-1")?;
        when(pending > 0, pending)
    });
    let is_owner = || all_stand(&fleet, &fleet.layer(Layer::Partial), "final", "owner");
    ordered(&fleet, "undrain of a final node", |node| node.change_node("final-1", "undrain", &by_drill()), is_owner);

    let sent = feed.finish();
    eventually(CATCH_UP, "an empty spill", || {
        let pending = spilled(&fleet, "relay-1")?;
        when(pending == 0, pending)
    });
    nothing_is_lost(&mut fleet, &sink, &sent);
    no_worker_failed(&fleet);
    fleet.end();
}
