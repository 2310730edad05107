//! The loop: asks, listens and draws, all in one thread and none waiting for another.

use std::time::Duration;

use admin_api::{ReplayStatus, SpillStatus, Status, paths};
use anyhow::Context as _;
use config::{Cluster, Layer, Node};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use runtime::Clock;
use tokio::time::{MissedTickBehavior, interval};

use super::dialogue::{Dialogue, Key, Step};
use super::model::{Look, Model};
use super::order::Order;
use super::view;
use crate::client::{Answer, Client, Request, complaint, exchange_all};
use engine::rate;

/// Keys are looked for so often.
const KEYS_EVERY: Duration = Duration::from_millis(50);
/// Nodes are asked so often.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// # Errors
/// When the terminal does not do what it is told.
pub(super) fn run(cluster: &Cluster, client: &Client, by: String, colour: bool) -> anyhow::Result<()> {
    let mut terminal = ratatui::try_init().context("take over the terminal")?;
    let top = Top { cluster, by, colour, clock: Clock::new(), model: Model::new(cluster), dialogue: Dialogue::Looking };
    let ended = client.drive(top.run(&mut terminal));
    ratatui::try_restore().context("give the terminal back")?;
    ended
}

struct Top<'c> {
    cluster: &'c Cluster,
    by: String,
    colour: bool,
    clock: Clock,
    model: Model,
    dialogue: Dialogue,
}

impl Top<'_> {
    async fn run(mut self, terminal: &mut DefaultTerminal) -> anyhow::Result<()> {
        let mut keys = interval(KEYS_EVERY);
        keys.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_ask = interval(ASK_EVERY);
        next_ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let cluster = self.cluster;
        // What is under way: one round of questions, and one order.
        let mut asking = std::pin::pin!(None);
        let mut ordering = std::pin::pin!(None);
        loop {
            let (model, dialogue, colour) = (&self.model, &self.dialogue, self.colour);
            terminal.draw(|frame| view::draw(frame, model, dialogue, colour)).context("draw")?;
            tokio::select! {
                _ = keys.tick() => {
                    while let Some(key) = next_key()? {
                        let (next, step) = self.dialogue.press(key, &mut self.model);
                        self.dialogue = next;
                        match step {
                            Step::Stay => {}
                            Step::Quit => return Ok(()),
                            Step::Send(order) => ordering.set(Some(send(cluster, order, self.by.clone()))),
                        }
                    }
                }
                _ = next_ask.tick(), if asking.is_none() => asking.set(Some(look(cluster))),
                looks = under_way(asking.as_mut()) => {
                    asking.set(None);
                    let now = self.clock.now();
                    for (name, look) in looks {
                        self.model.see(now, name, look);
                    }
                }
                lines = under_way(ordering.as_mut()) => {
                    ordering.set(None);
                    self.dialogue = self.dialogue.told(lines);
                }
            }
        }
    }
}

/// Waits for what is under way; for ever if nothing is.
async fn under_way<F: Future>(mut what: std::pin::Pin<&mut Option<F>>) -> F::Output {
    match what.as_mut().as_pin_mut() {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// The next key that was pressed, if there is one. Ctrl-C leaves, as everywhere.
fn next_key() -> anyhow::Result<Option<Key>> {
    while event::poll(Duration::ZERO).context("listen to the keyboard")? {
        let Event::Key(key) = event::read().context("listen to the keyboard")? else { continue };
        if key.kind != KeyEventKind::Press {
            continue;
        }
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Ok(Some(Key::Char('q')));
        }
        if let Some(known) = known(key.code) {
            return Ok(Some(known));
        }
    }
    Ok(None)
}

fn known(code: KeyCode) -> Option<Key> {
    let others = [
        (KeyCode::Enter, Key::Enter),
        (KeyCode::Esc, Key::Escape),
        (KeyCode::Backspace, Key::Backspace),
        (KeyCode::Up, Key::Up),
        (KeyCode::Down, Key::Down),
    ];
    match code.as_char() {
        Some(c) => Some(Key::Char(c)),
        None => others.into_iter().find(|(other, _)| *other == code).map(|(_, key)| key),
    }
}

/// Asks every node everything, at once.
async fn look(cluster: &Cluster) -> Vec<(&str, Look)> {
    let of = |layers: &'static [Layer], path: &'static str| {
        cluster.nodes.iter().filter(|node| layers.contains(&node.layer)).map(move |node| (node, Request::get(path)))
    };
    let mut requests: Vec<(&Node, Request)> =
        cluster.nodes.iter().map(|node| (node, Request::get(paths::STATUS))).collect();
    let nodes = requests.len();
    requests.extend(of(&[Layer::Relay], paths::SPILL));
    let spills = requests.len();
    requests.extend(of(&[Layer::Replayer, Layer::Final], paths::REPLAY));
    let mut answers = exchange_all(requests).await;
    let replays: Vec<Answer<'_, ReplayStatus>> = answers.split_off(spills).into_iter().map(Answer::decoded).collect();
    let spills: Vec<Answer<'_, SpillStatus>> = answers.split_off(nodes).into_iter().map(Answer::decoded).collect();
    let looks = answers.into_iter().map(|answer| {
        let node = answer.node;
        let look = Look {
            status: answer.decoded::<Status>().result.map_err(|fault| fault.to_string()),
            spill: of_node(&spills, node),
            replay: of_node(&replays, node),
        };
        (node.name.as_str(), look)
    });
    looks.collect()
}

fn of_node<T: Clone>(answers: &[Answer<'_, T>], node: &Node) -> Option<T> {
    let answer = answers.iter().find(|answer| answer.node.name == node.name)?;
    answer.result.as_ref().ok().cloned()
}

/// Sends an order to all nodes that replay, and says what each made of it.
async fn send(cluster: &Cluster, order: Order, by: String) -> Vec<String> {
    let change = order.change(&by);
    let replaying = cluster.nodes.iter().filter(|node| matches!(node.layer, Layer::Replayer | Layer::Final));
    let requests = replaying.map(|node| Request::put(paths::REPLAY, &change).map(|request| (node, request)));
    match requests.collect::<anyhow::Result<Vec<_>>>() {
        Ok(requests) => exchange_all(requests).await.into_iter().map(|answer| outcome(answer.decoded())).collect(),
        Err(error) => vec![format!("{error:#}")],
    }
}

fn outcome(answer: Answer<'_, ReplayStatus>) -> String {
    let name = &answer.node.name;
    match answer.result {
        Ok(replay) if replay.settings.paused => format!("{name}: paused"),
        Ok(replay) => format!("{name}: up to {}", rate::show(replay.settings.rate)),
        Err(fault) => complaint(name, &fault).trim_end().to_owned(),
    }
}
