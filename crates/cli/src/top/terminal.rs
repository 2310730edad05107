//! The loop: asks, listens and draws, all in one thread and none waiting for another.

use std::time::Duration;

use anyhow::Context as _;
use config::Cluster;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use runtime::Clock;
use tokio::time::{MissedTickBehavior, interval};

use super::dialogue::{Dialogue, Key, Step};
use super::view;
use crate::client::Client;
use crate::watch::{ASK_EVERY, Model, foresee, look, send};

/// Keys are looked for so often.
const KEYS_EVERY: Duration = Duration::from_millis(50);

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
        // What is under way: one round of questions, the preview of an order, and one order.
        let mut asking = std::pin::pin!(None);
        let by = self.by.clone();
        let by = by.as_str();
        let mut foreseeing = std::pin::pin!(None);
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
                            Step::Foresee(order) => {
                                let now = self.clock.unix();
                                foreseeing.set(Some(async move {
                                    let preview = foresee(cluster, &order, by, now).await;
                                    (order, preview)
                                }));
                            }
                            Step::Send(order) => {
                                let now = self.clock.unix();
                                ordering.set(Some(async move { send(cluster, &order, by, now).await }));
                            }
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
                (order, preview) = under_way(foreseeing.as_mut()) => {
                    foreseeing.set(None);
                    self.dialogue = self.dialogue.foreseen(&order, preview);
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
