//! Orders to the whole cluster, from the page.

use std::time::Duration;

use admin_api::{ModeStatus, PoolNode};
use testkit::{eventually, within};

use super::{ENTER, ESCAPE, SOON, Stage, when};

/// From the click to the last node.
const EFFECTIVE_WITHIN: Duration = Duration::from_secs(1);
/// Nodes of the stage's cluster.
const NODES: usize = 7;

fn modes(stage: &Stage) -> Result<Vec<ModeStatus>, String> {
    stage.fleet.names().iter().map(|node| stage.fleet.api(node).modes()).collect()
}

fn all_are(stage: &Stage, mode: &str) -> Result<(), String> {
    let modes = modes(stage)?;
    let layers: Vec<&str> = modes.iter().flat_map(|node| &node.layers).map(|layer| layer.mode.as_str()).collect();
    when(layers.len() == 2 * NODES && layers.iter().all(|layer| *layer == mode), layers)
}

/// `node` as every relay sees it.
fn seen(stage: &Stage, node: &str) -> Result<Vec<PoolNode>, String> {
    let relays = ["relay-1", "relay-2"].map(|relay| stage.fleet.api(relay).health());
    let relays: Vec<_> = relays.into_iter().collect::<Result<_, _>>()?;
    let pools = relays.into_iter().flat_map(|(health, _)| health.pools);
    Ok(pools.flat_map(|pool| pool.nodes).filter(|member| member.node == node).collect())
}

pub(super) fn switches_all_layers(stage: &Stage) {
    let mut quickest = SOON;
    for (mode, old) in [("lenient", "as the cluster file says"), ("strict", "lenient"), ("auto", "strict")] {
        stage.browser.click(&format!("[data-layer=all] [data-mode={mode}]"));
        let preview = stage.previewed(&format!("mode of final: {old} -> {mode}"));
        assert!(preview.contains(&format!("mode of partial: {old} -> {mode}")), "{preview}");
        assert_eq!(stage.browser.text("#order-command"), format!("spillway health mode {mode} --all"));
        assert!(all_are(stage, mode).is_err() || old.contains("file"), "a preview changes nothing");
        if mode == "lenient" {
            stage.shot("mode-preview");
        }
        stage.browser.click("#send");
        let (_, took) = within(SOON, "every node to have the mode", || all_are(stage, mode)).expect("in force");
        told(&format!("{mode} on all {NODES} nodes {took:?} after the click"));
        quickest = quickest.min(took);
        eventually(SOON, "the answers on the page", || {
            let said = stage.browser.text("#order-lines");
            when(said.contains("(7 of 7 nodes)"), said)
        });
        stage.browser.press(ESCAPE);
        eventually(SOON, "the mode on the page", || {
            let pressed = stage.browser.text("[data-layer=all] [aria-pressed=true]");
            when(pressed == mode, pressed)
        });
    }
    // One that was slow is the machine's; three are ours.
    assert!(quickest <= EFFECTIVE_WITHIN, "{quickest:?}");
    eventually(SOON, "one row for each order, whoever heard of it", || {
        let script = "return [...document.querySelectorAll('#audit li')].map((row) => row.textContent)
            .filter((row) => row.includes('mode of partial'))";
        let rows: Vec<String> = serde_json::from_value(stage.browser.run(script)).expect("rows");
        let whole = rows.iter().all(|row| row.contains("7 nodes") && row.contains("(console)"));
        when(rows.len() == 3 && whole && rows[0].contains("strict → auto"), &rows)
    });
    for_a_time(stage);
}

/// For whoever reads the test's output.
#[allow(clippy::print_stdout, reason = "the figure is what the test is for")]
fn told(what: &str) {
    println!("{what}");
}

/// A mode that ends by itself, ordered by keys alone, as far as its preview.
fn for_a_time(stage: &Stage) {
    stage.browser.run("document.getElementById('mode-for').value = '30m'");
    stage.browser.press("m");
    stage.browser.press(ENTER);
    let preview = stage.previewed("mode of partial: auto -> strict until ");
    assert!(preview.contains(", then auto"), "{preview}");
    assert_eq!(stage.browser.text("#order-command"), "spillway health mode strict --all --for 30m");
    stage.browser.press(ESCAPE);
    stage.browser.run("document.getElementById('mode-for').value = ''");
    assert_eq!(all_are(stage, "auto"), Ok(()), "Esc sends nothing");
}

pub(super) fn drains_a_node_and_lets_it_in_again(stage: &Stage) {
    let traffic = || stage.browser.run("return document.querySelector('[data-node=partial-2]').dataset.traffic");
    eventually(SOON, "traffic on the page", || when(traffic() == "yes", traffic()));
    stage.browser.click("[data-node=partial-2] .hand button");
    let preview = stage.previewed("partial-2: active -> drained");
    assert!(preview.contains("relay-2") && preview.contains("partial-2 would lose traffic"), "{preview}");
    stage.shot("drain-preview");
    stage.browser.click("#send");
    let drained =
        || seen(stage, "partial-2").map(|seen| seen.iter().all(|one| one.standing == "drained" && !one.eligible));
    eventually(SOON, "every relay to send it nothing", || {
        drained().and_then(|drained| when(drained, seen(stage, "partial-2")))
    });
    stage.browser.press(ESCAPE);
    eventually(SOON, "the drain on the page", || {
        let row = stage.browser.text("[data-node=partial-2]");
        when(traffic() == "none" && row.contains("an operator drained it") && row.contains("Undrain"), row)
    });
    let screens = [("drained", 1280, 1300, "light"), ("drained-dark", 1280, 1300, "dark")];
    for (name, width, height, scheme) in screens.into_iter().chain([("phone-drained", 390, 2400, "light")]) {
        stage.screen(width, height, scheme);
        stage.fits(name);
        stage.shot(name);
    }
    stage.screen(1280, 800, "light");
    // By keys alone.
    stage.browser.run("document.querySelector('[data-node=partial-2] .hand button').focus()");
    stage.browser.press(ENTER);
    stage.previewed("partial-2 would gain traffic");
    stage.browser.press(ENTER);
    let back = || seen(stage, "partial-2").map(|seen| seen.iter().all(|one| one.eligible));
    eventually(SOON, "every relay to send to it again", || {
        back().and_then(|back| when(back, seen(stage, "partial-2")))
    });
    eventually(SOON, "both on the page", || {
        let changes = stage.browser.text("#audit");
        when(changes.contains("active → drained") && changes.contains("drained → active"), changes)
    });
    stage.browser.press(ESCAPE);
    // A final node's partitions are on it alone: what would be held off is said before.
    stage.browser.click("[data-node=final-2] .hand button");
    stage.previewed("final-2 would lose traffic");
    stage.browser.press(ESCAPE);
}

/// With a node killed.
pub(super) fn hears_before_an_order_who_will_not_answer(stage: &Stage) {
    stage.browser.click("[data-layer=partial] [data-mode=lenient]");
    stage.previewed("partial-2 does not answer");
    assert!(stage.browser.text("#order-lines .bad").contains("it hears of an order from its peers when it is back"));
    stage.shot("order-with-one-away");
    stage.browser.press(ESCAPE);
}
